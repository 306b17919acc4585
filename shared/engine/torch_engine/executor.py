"""One model on one device: weights, cache and the layout of steps. All that computes, and nothing that decides.

Owns every tensor of an engine. Knows neither sequences' ends nor callers; the thread that owns it calls it.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.gathered import GatheredLayout
from shared.engine.torch_engine.model import Loader
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.staging import Staging, open_memory
from shared.engine.torch_engine.view import Layout
from shared.engine.torch_engine.weights import Checkpoint
from shared.kv.arena import Arena
from shared.kv.layout import KvLayout


class Executor:
    """Raises EngineFailed when the weights are not what the architecture asks for."""

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
    ) -> None:
        self._device = device
        with torch.inference_mode(), Checkpoint(directory) as checkpoint:
            self._model = Loader(architecture, checkpoint, device, dtype, quantization=quantization).model()
            self._cache = Cache(layout, blocks, dtype, device)
        self._layout: Layout = GatheredLayout(architecture, self._cache, device, dtype)
        self._staging: Staging | None = None

    @torch.inference_mode()
    def forward(self, plan: Plan) -> tuple[Tensor, list[Run]]:
        """Run the plan: logits [samples, vocabulary], and whose next token each of them decides."""
        self._cache.clear(plan.fresh)
        batch = self._layout.batch(plan)
        return self._model.forward(batch), batch.samples

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
        del self._model, self._cache, self._layout
        self._device.clear()
