"""The way between a cache on a CUDA device and buffers in host memory, a slice at a time.

Owns two slices of device memory, a stream beside the compute stream and, for buffers that cannot be pinned, two pieces
of pinned memory. While one slice is gathered, the one before it is copied, so that the bus is never idle; a pinned
buffer is copied to and from where it lies. One thread's: the engine's.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from shared.engine.torch_engine.pinning import Pinned, runs

SLICE_BYTES: Final = 16 << 20
_WORDS: Final = {"cuda": (torch.complex128, torch.int64, torch.int32), "cpu": (torch.int64, torch.int32)}


class Passage:
    """Between rows [number, words] on a device and buffers that hold some of them, one after another."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self._row_bytes = rows[0].numel() * rows.itemsize
        self._step = max(1, SLICE_BYTES // self._row_bytes)
        self._side: Any = torch.cuda.Stream(rows.device)  # type: ignore[no-untyped-call]
        self._pinned = Pinned()
        self._over: list[Any] = [_event(), _event()]  # the compute stream is done with the slice

    def gather(self, index: Tensor, buffer: memoryview) -> None:
        """Copy rows to the buffer. Complete when it returns."""
        host = torch.frombuffer(buffer, dtype=torch.uint8)
        direct = self._pinned.reaches(buffer)
        waiting: list[tuple[Any, Tensor, Tensor]] = []  # copies on their way to pinned memory, and where they go on to
        came = [_event(), _event()]
        for place, some, start, stop in self._slices(index):
            piece, copied = self._slice(place, len(some)), came[place]
            self._compute.wait_event(copied)  # of the slice's last use
            torch.index_select(self._rows, 0, some, out=piece)
            self._over[place].record(self._compute)
            with torch.cuda.stream(self._side):
                self._side.wait_event(self._over[place])
                flat = piece.view(-1).view(torch.uint8)
                if direct:
                    for low, high in runs(buffer, start, stop):
                        host[low:high].copy_(flat[low - start : high - start], non_blocking=True)
                else:
                    self._bounce[place][: stop - start].copy_(flat, non_blocking=True)
                copied.record(self._side)
            if not direct:
                _pass_on(waiting)
                waiting.append((copied, host[start:stop], self._bounce[place][: stop - start]))
        _pass_on(waiting)
        self._side.synchronize()

    def scatter(self, index: Tensor, buffer: memoryview) -> None:
        """Set rows from the buffer, which is free when it returns."""
        host = torch.frombuffer(buffer, dtype=torch.uint8)
        direct = self._pinned.reaches(buffer)
        came = [_event(), _event()]
        for place, some, start, stop in self._slices(index):
            piece = self._slice(place, len(some))
            flat = piece.view(-1).view(torch.uint8)
            if not direct:
                came[place].synchronize()  # the piece of pinned memory is free again
                self._bounce[place][: stop - start].copy_(host[start:stop])
            with torch.cuda.stream(self._side):
                self._side.wait_event(self._over[place])
                if direct:
                    for low, high in runs(buffer, start, stop):
                        flat[low - start : high - start].copy_(host[low:high], non_blocking=True)
                else:
                    flat.copy_(self._bounce[place][: stop - start], non_blocking=True)
                came[place].record(self._side)
            self._compute.wait_event(came[place])
            self._rows.index_copy_(0, some, piece)
            self._over[place].record(self._compute)
        self._side.synchronize()

    def _slices(self, index: Tensor) -> Iterator[tuple[int, Tensor, int, int]]:
        """Which of the two slices, the rows that go by it, and where in the buffer they lie."""
        for turn, some in enumerate(torch.split(index, self._step)):
            start = turn * self._step * self._row_bytes
            yield turn % 2, some, start, start + len(some) * self._row_bytes

    def _slice(self, place: int, number: int) -> Tensor:
        return self._slices_on_device[place][:number]

    @property
    def _compute(self) -> Any:  # noqa: ANN401
        return torch.cuda.current_stream(self._rows.device)

    @cached_property
    def _slices_on_device(self) -> list[Tensor]:
        return [self._rows.new_empty((self._step, self._rows.shape[1])) for _ in range(2)]

    @cached_property
    def _bounce(self) -> list[Tensor]:
        nbytes = self._step * self._row_bytes
        return [torch.empty(nbytes, dtype=torch.uint8, pin_memory=True) for _ in range(2)]


def words(blocks: Tensor) -> Tensor:
    """The blocks [blocks, ...] as rows of the largest words they are made of that the device moves: the fewest."""
    flat = blocks.view(len(blocks), -1)
    for dtype in _WORDS.get(blocks.device.type, ()):
        if flat.shape[1] * flat.itemsize % dtype.itemsize == 0:
            return flat.view(dtype)
    return flat


def _pass_on(waiting: list[tuple[Any, Tensor, Tensor]]) -> None:
    """Copy to the buffer what has come to pinned memory."""
    while waiting:
        copied, target, source = waiting.pop()
        copied.synchronize()
        target.copy_(source)


def _event() -> Any:  # noqa: ANN401
    return torch.cuda.Event()  # type: ignore[no-untyped-call]
