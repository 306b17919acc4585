"""CUDA or NPU as a KV move needs it: a side stream, events that are asked and not waited for, pinned memory.

Owns what differs between devices, which is little: torch.cuda and torch.npu have the same names.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


class Accelerator:
    """CUDA or NPU, which differ in a name: torch.cuda and torch.npu have the same streams and events."""

    def __init__(self, device: torch.device, arena: Tensor) -> None:
        self.device = device
        self._torch: Any = getattr(torch, device.type)
        self.side: Any = self._torch.Stream(device)
        self._arena = arena
        self.direct = self._register()  # the device reads and writes the arena itself

    def current(self) -> Any:  # noqa: ANN401  either kind of stream
        """The compute stream."""
        return self._torch.current_stream(self.device)

    def beside(self) -> AbstractContextManager[Any]:
        """Work in it goes on the side stream."""
        context: AbstractContextManager[Any] = self._torch.stream(self.side)
        return context

    def mark(self) -> Any:  # noqa: ANN401
        """An event behind all that was given to the side stream so far; `query` says whether it came."""
        event = self._torch.Event()
        event.record(self.side)
        return event

    def pinned(self, like: Tensor) -> Tensor:
        """Host memory of that shape which the device reads and writes itself."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def used(self, *tensors: Tensor) -> None:
        """By the compute stream, lately: the side stream's memory that they are in must outlive that."""
        for tensor in tensors:
            tensor.record_stream(self.current())

    def close(self) -> None:
        """Waits for the side stream; the arena may be unmapped then."""
        self.side.synchronize()
        if self.direct:
            self._torch.cudart().cudaHostUnregister(self._arena.data_ptr())
            self.direct = False

    def _register(self) -> bool:
        if self.device.type != "cuda":
            return False
        code = self._torch.cudart().cudaHostRegister(self._arena.data_ptr(), self._arena.numel(), 0)
        return int(code) == 0
