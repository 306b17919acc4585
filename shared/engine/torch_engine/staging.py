"""Where a KV buffer's bytes are: in the buffer itself, or at the same place of the device's own staging memory.

Owns the engine's reading and writing of the arena's marks. Must not know how the memory goes from process to process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shared.engine.torch_engine.device import Device
from shared.errors import EngineFailed
from shared.kv.arena import Arena
from shared.kv.device_arena import DeviceArena, DeviceError, has_room


class Memory(DeviceArena, Protocol):
    """A device arena that torch computes in."""

    def tensor(self, offset: int, nbytes: int) -> Tensor:
        """The bytes [nbytes], uint8, at the offset."""
        ...

    def finish(self) -> None:
        """Wait until the calling thread's stream has done what it was told."""
        ...


@dataclass(frozen=True, slots=True)
class Staging:
    """An arena with its memory on the engine's device."""

    arena: Arena
    memory: Memory

    def write(self, buffer: memoryview, gather: Callable[[Tensor], object]) -> bool:
        """Let `gather` fill the buffer's place on the device. False, and not called, where it has none there."""
        offset = self._place(buffer)
        if offset is None:
            return False
        gather(self.memory.tensor(offset, len(buffer)))
        self.memory.finish()
        self.arena.on_device.add(offset)
        return True

    def read(self, buffer: memoryview, scatter: Callable[[Tensor], object]) -> bool:
        """Let `scatter` use the buffer's bytes on the device. False, and not called, where they are not there."""
        offset = self._place(buffer)
        if offset is None or offset not in self.arena.on_device:
            return False
        scatter(self.memory.tensor(offset, len(buffer)))
        self.memory.finish()
        return True

    def close(self) -> None:
        """Give the device's memory back."""
        self.arena.device = None
        self.memory.close()

    def _place(self, buffer: memoryview) -> int | None:
        try:
            offset = self.arena.offset_of(buffer)
        except (TypeError, ValueError):  # read-only, or no part of the arena
            return None
        return offset if has_room(self.memory, offset, len(buffer)) else None


def open_memory(device: Device, nbytes: int) -> Memory | None:
    """Staging memory on the device; None where buffers in host memory serve as well. Raises EngineFailed."""
    if device.where.type != "cuda" or torch.version.hip:
        return None
    from shared.kv.cuda_arena import CudaArena  # noqa: PLC0415  loads the driver's library

    try:
        return CudaArena(nbytes, device.where.index or 0)
    except DeviceError as error:
        raise EngineFailed(f"no staging memory of {nbytes} bytes on {device.where}: {error}") from error
