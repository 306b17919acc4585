"""One host buffer from which a device reads while the host goes on, used again and again."""

from typing import Any

import torch

from shared.engine.torch_engine.cuda.rows import Ints
from shared.engine.torch_engine.device import pinned


class Upload:
    """Room for so many int32 numbers."""

    def __init__(self, size: int, where: torch.device) -> None:
        on_device = where.type == "cuda"
        shape = torch.Size((size,))
        self._staging = pinned(shape, torch.int32) if on_device else torch.empty(shape, dtype=torch.int32)
        self._host: Ints = self._staging.numpy()
        self._read: Any = vars(torch)["cuda"].Event() if on_device else None  # an event; torch leaves it untyped

    def send(self, target: torch.Tensor, numbers: Ints) -> None:
        """Copy the numbers to the target's first places, in stream order; waits only for this buffer's last copy."""
        if self._read is not None:
            self._read.synchronize()
        self._host[: numbers.size] = numbers
        target[: numbers.size].copy_(self._staging[: numbers.size], non_blocking=True)
        if self._read is not None:
            self._read.record()
