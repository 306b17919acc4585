"""Steps laid out for our own kernels: block tables stay on the device, keys and values are read where they lie.

Owns which sequence has which slot. What a step uploads travels in one copy, and does not grow with the context.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.cuda.memory import Memory
from shared.engine.torch_engine.cuda.present import starts_early
from shared.engine.torch_engine.cuda.rows import Ints, Rows, padding, rows_of
from shared.engine.torch_engine.cuda.shapes import Cut, power_of_two
from shared.engine.torch_engine.cuda.slots import Slots
from shared.engine.torch_engine.cuda.step_kernel import begin_step
from shared.engine.torch_engine.cuda.upload import Upload
from shared.engine.torch_engine.cuda.view import PagedView
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.view import Batch

ENTRIES: Final = 128
"""Of the block table, written by one program of a step's first kernel."""


class PagedLayout:
    """See Layout. For at most so many sequences at once; `architecture.heads` are those that this device computes."""

    def __init__(
        self, architecture: Architecture, cache: Cache, device: Device, dtype: torch.dtype, *, sequences: int
    ) -> None:
        self._kinds = architecture.kinds
        self._device = device
        self._memory = Memory.of(architecture, cache, sequences, device.where)
        self._slots = Slots(sequences, self._memory.table.shape[1])
        self._dtype = dtype
        self._early = starts_early(device.where)

    def batch(self, plan: Plan) -> Batch:
        """See Layout. Decoding sequences in the plan's order, then chunks, the short ones first."""
        cut = self._cut(sum(chunk.stop - chunk.start for chunk in plan.chunks))
        rows = self.rows(plan, cut)
        host = np.concatenate(
            [
                rows.fields.reshape(-1),
                np.array([len(rows.entries) // 2, *rows.entries], np.int32),
                np.array(rows.tiles, np.int32).reshape(-1),
                np.array(rows.sampled, np.int32),
            ]
        )
        sizes = (4 * rows.number, 1 + len(rows.entries), 2 * len(rows.tiles), len(rows.sampled))
        fields, fresh, tiles, sampled = self._device.upload(torch.from_numpy(host)).split_with_sizes(sizes)
        batch = self.begin(fields.view(4, -1), fresh, rows.alone, tiles.view(-1, 2), cut)
        everywhere = len(rows.sampled) == rows.number
        return Batch(batch.tokens, batch.views, None if everywhere else sampled, rows.samples)

    def fixed(self, rows: int) -> "FixedStep":
        """A step of so many rows at fixed addresses, for a CUDA graph."""
        return FixedStep(self, rows)

    def keep(self, batch: Batch, drawn: Tensor) -> None:
        """Remember the tokens [samples] drawn for a batch: a later step takes them where the host knows none."""
        view = batch.views[self._kinds[0]]
        if not isinstance(view, PagedView):
            raise TypeError("a batch of another layout")
        slots = view.slots if batch.sampled is None else view.slots[batch.sampled]
        self._memory.last.index_copy_(0, slots.long(), drawn.to(torch.int32))

    def rows(self, plan: Plan, cut: Cut | None = None) -> Rows:
        """The plan as numbers; its entries must be written before the next plan's. `cut` is needed for chunks."""
        heads = self._memory.heads
        return rows_of(plan, self._slots, heads.block_size, (cut or self._cut(0)).rows // heads.group)

    def begin(
        self, fields: Tensor, fresh: Tensor, alone: int, tiles: Tensor | None = None, cut: Cut | None = None
    ) -> Batch:
        """Launch what comes before the layers; the tensors are those of `begin_step`. Can be captured."""
        if tiles is None or cut is None:
            tiles, cut = fields.new_empty((0, 2)), self._cut(0)
        memory, rows = self._memory, fields.shape[1]
        kinds, half = memory.frequencies.shape
        tokens = fields.new_empty(rows)
        turns = memory.frequencies.new_empty((kinds, rows, 2, half))
        begin_step[(rows + -(-(fresh.shape[0] // 2) // ENTRIES),)](
            fields,
            fresh,
            memory.frequencies,
            tokens,
            turns,
            memory.table,
            memory.last,
            rows,
            kinds,
            half,
            power_of_two(half),
            ENTRIES,
        )
        _, positions, slots, places = fields.unbind(0)
        views = {
            kind: PagedView(memory, kind.window, turn, positions, slots, places, alone, tiles, cut, self._early)
            for kind, turn in zip(self._kinds, turns.unbind(0), strict=True)
        }
        return Batch(tokens, views, None, [])

    def write(self, entries: list[int]) -> None:
        """Write entries of the block table, before a step that has no room for so many."""
        fresh = self._device.upload(torch.tensor([len(entries) // 2, *entries], dtype=torch.int32))
        self.begin(fresh.new_empty((4, 0)), fresh, 0)

    def _cut(self, queries: int) -> Cut:
        return self._memory.heads.prompt(self._dtype, queries, self._memory.processors)

    @property
    def padding_slot(self) -> int:
        """Of rows that belong to no sequence."""
        return self._slots.number

    @property
    def where(self) -> torch.device:
        """The device."""
        return self._device.where


class FixedStep:
    """Steps of decoding sequences, at most so many, over the same memory: what a CUDA graph was captured over.

    `begin` and what follows it is captured once; then each step is `fill` and a replay.
    """

    def __init__(self, layout: PagedLayout, rows: int) -> None:
        self._layout = layout
        self._rows = rows
        self._room = -(-rows // ENTRIES) * ENTRIES  # of table entries: steps that need more are few
        size = 4 * rows + 1 + 2 * self._room
        self._buffer = torch.empty(size, dtype=torch.int32, device=layout.where)
        self._uploads = [Upload(size, layout.where), Upload(size, layout.where)]  # one is filled while the other goes
        self._upload(padding(rows, layout.padding_slot), [])

    def begin(self) -> Batch:
        """Launch the first kernel; the batch has no samples, see `fill`."""
        fields, fresh = self._buffer.split_with_sizes((4 * self._rows, 1 + 2 * self._room))
        return self._layout.begin(fields.view(4, -1), fresh, self._rows)

    def fill(self, plan: Plan) -> list[Run]:
        """Upload a plan without chunks; whose next token the first rows decide. The other rows are padding."""
        rows = self._layout.rows(plan)
        fields = padding(self._rows, self._layout.padding_slot)
        fields[:, : rows.number] = rows.fields
        entries = rows.entries
        if len(entries) > 2 * self._room:
            self._layout.write(entries)
            entries = []
        self._upload(fields, entries)
        return rows.samples

    def _upload(self, fields: Ints, entries: list[int]) -> None:
        self._uploads.reverse()
        self._uploads[0].send(self._buffer, np.concatenate((fields.reshape(-1), [len(entries) // 2, *entries])))
