"""Host memory that a CUDA device reads and writes by itself: parts of an arena are pinned as they are first used.

Owns the registrations. A pinned part is resident for good, so no more is pinned than buffers have touched. Where the
memory is no mapping, or cannot be pinned, the answer is no, and copies go through memory that is.
"""

import ctypes
import mmap
import weakref
from collections.abc import Iterator
from typing import Any, Final

import torch

SEGMENT_BYTES: Final = 64 << 20


class Pinned:
    """Which parts of which mappings are pinned. One thread's."""

    def __init__(self) -> None:
        # by the mapping itself: another one may lie at the same address later
        self._segments: weakref.WeakKeyDictionary[mmap.mmap, dict[int, bool]] = weakref.WeakKeyDictionary()

    def reaches(self, buffer: memoryview) -> bool:
        """Whether all of the buffer is pinned, now if not before."""
        place = _place(buffer)
        if place is None:
            return False
        memory, offset = place
        first, last = offset // SEGMENT_BYTES, (offset + len(buffer) - 1) // SEGMENT_BYTES
        return all(self._pin(memory, segment) for segment in range(first, last + 1))

    def _pin(self, memory: mmap.mmap, segment: int) -> bool:
        segments = self._segments.setdefault(memory, {})
        if segment not in segments:
            start = segment * SEGMENT_BYTES
            address = _address(memory) + start
            runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            code = runtime.cudaHostRegister(address, min(SEGMENT_BYTES, len(memory) - start), 0)
            segments[segment] = int(code) == 0
            if segments[segment]:
                weakref.finalize(memory, _unpin, address)
        return segments[segment]


def runs(buffer: memoryview, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut a part of a pinned buffer where one segment ends and the next begins: no copy may span two."""
    place = _place(buffer)
    offset = 0 if place is None else place[1]
    while start < stop:
        end = min(stop, start + SEGMENT_BYTES - (offset + start) % SEGMENT_BYTES)
        yield start, end
        start = end


def _place(buffer: memoryview) -> tuple[mmap.mmap, int] | None:
    """The mapping that a writable buffer is part of, and where in it it begins."""
    memory = buffer.obj
    if not isinstance(memory, mmap.mmap) or buffer.readonly or not len(buffer):
        return None
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(buffer)) - _address(memory)


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _unpin(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
