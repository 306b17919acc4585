"""Steps laid out for torch's own attention kernels, on any device: keys and values are gathered, then attended.

Owns the order of rows: decoding sequences, on a processor those with lanes first, then the chunks in the plan's order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.attention import Geometry, Ints, Part, Span, attend
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.cpu.bank import Abreast
from shared.engine.torch_engine.cpu.lanes import Lanes
from shared.engine.torch_engine.cpu.norms import ShortNorm, beside
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.rotary import Rotation, frequencies
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.view import Batch, HeadNorms


class HeadNormsBeside:
    """Each layer's norms of queries and keys as one, for heads that lie side by side."""

    def __init__(self, heads: int, kv_heads: int) -> None:
        self._numbers = heads, kv_heads
        self._joined: dict[int, ShortNorm] = {}

    def __call__(self, layer: int, norms: HeadNorms, x: Tensor) -> Tensor:
        """Apply them to [rows, heads + kv_heads, head_dim]."""
        joined = self._joined.get(layer)
        if joined is None:
            query, key = norms
            if not (isinstance(query, ShortNorm) and isinstance(key, ShortNorm) and query.eps == key.eps):
                queries, keys = x.split_with_sizes(self._numbers, dim=1)
                return torch.cat((query(queries), key(keys)), 1)
            joined = self._joined[layer] = beside((query, key), self._numbers)
        return joined(x)


@dataclass(frozen=True, slots=True)
class GatheredView:
    """See View."""

    cache: Cache
    heads: int
    head_norms: HeadNormsBeside
    rotation: Rotation
    token_rows: Tensor  # see Cache.token_rows
    lanes: list[Abreast]
    parts: list[Part]

    def attend(self, layer: int, heads: Tensor, norms: HeadNorms | None, scale: float) -> Tensor:
        """Queries and keys are normalised and turned in one go, keys and values stored in one."""
        kv_heads, head_dim = self.cache.layout.kv_heads, heads.shape[2]
        turned = heads[:, : self.heads + kv_heads]
        self.rotation(turned if norms is None else self.head_norms(layer, norms, turned), out=turned)
        self.cache.write(layer, self.token_rows, heads[:, self.heads :])
        if len(self.lanes) == 1 and not self.parts and self.lanes[0].rows is None:
            return self.lanes[0].attend(layer, heads, self.heads, scale).reshape(len(heads), -1)
        out = heads.new_empty((len(heads), kv_heads, self.heads // kv_heads, head_dim))
        for lane in self.lanes:
            result = lane.attend(layer, heads, self.heads, scale)
            if lane.rows is None:
                out[lane.start : lane.stop] = result
            else:
                out.index_copy_(0, lane.rows, result)
        attend(heads[:, : self.heads], self.cache, layer, self.parts, scale=scale, out=out)
        return out.flatten(1)


class GatheredLayout:
    """See Layout."""

    def __init__(self, architecture: Architecture, cache: Cache, device: Device, dtype: torch.dtype) -> None:
        self._heads = architecture.heads
        self._cache = cache
        self._device = device
        self._dtype = dtype
        self._geometry = Geometry(cache, device, dtype)
        self._lanes: Lanes | None = None
        if device.lane_bytes:
            room = min(device.lane_bytes, cache.number * cache.layout.block_bytes)
            self._lanes = Lanes(architecture.layers, cache, self._geometry, dtype, room)
        self._head_norms = HeadNormsBeside(architecture.heads, cache.layout.kv_heads)
        self._frequencies = {
            kind: frequencies(kind.rope, architecture.head_dim).to(device.where) for kind in architecture.kinds
        }
        self._drawn: tuple[Tensor, dict[Run, int]] | None = None  # the tokens handed on, and whose are which

    def batch(self, plan: Plan) -> Batch:
        """See Layout."""
        seated, aside = self._order(plan.decodes)
        decodes = [*seated, *aside]
        spans = [Span(run.computed, run.computed + 1, run.blocks) for run in aside]
        chunks = [Span(chunk.start, chunk.stop, chunk.run.blocks) for chunk in plan.chunks]
        tokens = [run.input for run in decodes]
        samples, rows = list(decodes), list(range(len(decodes)))
        for chunk in plan.chunks:
            tokens += chunk.run.tokens[chunk.start : chunk.stop]
            if chunk.completes:
                samples.append(chunk.run)
                rows.append(len(tokens) - 1)
        positions, blocks = self._places(decodes, chunks)
        columns = np.stack((np.array(tokens), positions, blocks, positions % self._cache.layout.block_tokens))
        ids, places, of_blocks, offsets = self._device.upload(torch.from_numpy(columns)).unbind(0)
        self._put_drawn(ids, decodes)
        token_rows = self._cache.token_rows(of_blocks, offsets)
        turns = places[:, None, None].float()
        lanes = self._lanes.parts() if self._lanes is not None else {}
        views = {
            kind: GatheredView(
                self._cache,
                self._heads,
                self._head_norms,
                Rotation.at(turns, frequency, self._dtype),
                token_rows,
                lanes.get(kind, []),
                self._geometry.parts(kind, spans, chunks, len(seated)),
            )
            for kind, frequency in self._frequencies.items()
        }
        sampled = None if len(rows) == len(tokens) else self._device.upload(torch.tensor(rows, dtype=torch.int64))
        return Batch(ids, views, sampled, samples)

    def _order(self, decodes: list[Run]) -> tuple[list[Run], list[Run]]:
        """Those with lanes, and those whose blocks are gathered: equal padded lengths side by side."""
        if self._lanes is None:
            return [], sorted(decodes, key=lambda run: run.computed)
        return self._lanes.follow(decodes)

    def _places(self, decodes: list[Run], chunks: list[Span]) -> tuple[Ints, Ints]:
        """Each row's position and its block."""
        size = self._cache.layout.block_tokens
        positions = [run.computed for run in decodes]
        blocks = [run.blocks[run.computed // size] for run in decodes]
        for span in chunks:
            positions += range(span.start, span.stop)
            blocks += [span.blocks[position // size] for position in range(span.start, span.stop)]
        return np.array(positions, np.int64), np.array(blocks, np.int64)

    def keep(self, batch: Batch, drawn: Tensor) -> None:
        """See Layout."""
        self._drawn = drawn, {run: row for row, run in enumerate(batch.samples)}

    def _put_drawn(self, ids: Tensor, decodes: list[Run]) -> None:
        """In place of the tokens that the host does not know."""
        if self._drawn is None:
            return
        (drawn, rows), self._drawn = self._drawn, None
        places = [place for place, run in enumerate(decodes) if run.computed == len(run.tokens)]
        if places:
            pairs = torch.tensor((places, [rows[decodes[place]] for place in places]))
            targets, sources = self._device.upload(pairs).unbind(0)
            ids.index_copy_(0, targets, drawn[sources])
