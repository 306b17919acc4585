"""One model on one device: weights, cache and the layout of steps. All that computes, and nothing that decides.

Owns every tensor of an engine. Knows neither sequences' ends nor callers; the thread that owns it calls it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.cuda.graphs import Graphs, capture
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.layouts import layout_for
from shared.engine.torch_engine.model import Loader
from shared.engine.torch_engine.ranks.collective import Group
from shared.engine.torch_engine.ranks.shards import Shard
from shared.engine.torch_engine.ranks.shards import shard as whole
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.staging import Staging, open_memory
from shared.engine.torch_engine.view import Layout, Scores
from shared.engine.torch_engine.weights import Checkpoint
from shared.kv.arena import Arena
from shared.kv.layout import KvLayout


class Executor:
    """Computes on one device: all of a model, or a rank's shard of it, which `group` joins with the others'.

    Raises EngineFailed when the weights are not what the architecture asks for.
    """

    def __init__(
        self,
        directory: Path,
        architecture: Architecture,
        device: Device,
        dtype: torch.dtype,
        *,
        quantization: str,
        layout: KvLayout,
        blocks: int,
        sequences: int,
        shard: Shard | None = None,
        group: Group | None = None,
    ) -> None:
        self._device = device
        if shard is None:
            shard = whole(architecture)
        with torch.inference_mode(), Checkpoint(directory) as checkpoint:
            loader = Loader(
                architecture, checkpoint, device, dtype, quantization=quantization, shard=shard, group=group
            )
            self._model = loader.model()
            self._cache = Cache(replace(layout, kv_heads=shard.kv_heads.size), blocks, dtype, device)
        self._layout: Layout = layout_for(shard.local, self._cache, device, dtype, sequences=sequences)
        self._staging: Staging | None = None
        self._graphs: Graphs | None = None

    def capture(self, sequences: int) -> None:
        """Make steps of up to so many decoding sequences cheap to launch, where the device has a way."""
        self._graphs = capture(self._model, self._layout, self._device, sequences)

    @property
    def overlaps(self) -> bool:
        """See Computes."""
        return self._device.overlaps

    @torch.inference_mode()
    def forward(self, plan: Plan) -> Scores:
        """Have the plan computed; on an accelerator it returns before that is done."""
        if self._graphs is not None and not plan.chunks:  # which read nothing that is not written, so none is cleared
            return self._graphs.run(plan)
        self._cache.clear(plan.fresh)
        batch = self._layout.batch(plan)
        return Scores(self._model.forward(batch), batch.samples, batch)

    @torch.inference_mode()
    def keep(self, scores: Scores, tokens: Tensor) -> None:
        """Hand the tokens drawn from the scores, [rows], on to the next step, which is laid out before they are read.

        One that is not a number becomes token 0: its sequence fails when it is read.
        """
        if tokens is not scores.greedy:  # which the graph has handed on
            self._layout.keep(scores.batch, tokens.clamp(min=0))

    def stage(self, arena: Arena, nbytes: int) -> None:
        """Give the arena memory on the device, where it has any use there. Raises EngineFailed."""
        memory = open_memory(self._device, min(nbytes, arena.size))
        if memory is not None:
            self._staging = Staging(arena, memory)
            arena.device = memory

    @torch.inference_mode()
    def take_in(self, blocks: Sequence[int], tokens: int, buffer: memoryview) -> None:
        """Scatter a buffer of so many tokens into the first of the blocks; the others become zero."""
        self._cache.take_in(blocks, tokens, buffer, self._staging)

    @torch.inference_mode()
    def export(self, blocks: Sequence[int], buffer: memoryview, *, in_host: bool) -> None:
        """Gather the blocks into the buffer, or into its place on the device where that may be."""
        self._cache.export(blocks, buffer, None if in_host else self._staging)

    def close(self) -> None:
        """Free the device."""
        if self._staging is not None:
            self._staging.close()
        self._graphs = None
        del self._model, self._cache, self._layout
        self._device.clear()
