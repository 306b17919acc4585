"""Staging memory: one bounded piece of shared memory per process, given out in ranges.

Owns the memory and who holds which range; must not know what the bytes mean nor who moves them. Used on the event
loop's thread; only the bytes of a held range are touched elsewhere.

The memory is a memfd: it has no name in any file system, so a killed process leaves nothing behind, and its descriptor
can be handed to another process of the same user, which can then read it and, by the seals, neither shrink nor write
it. Only an arena that is made `shared` can be written by others too: an engine's own processes work in it. Pages come
into being when they are first touched, which costs several times a copy; the lowest free range is therefore always
taken first, so that a lightly used arena stays small and its pages warm.
"""

import ctypes
import fcntl
import mmap
import os
from bisect import bisect_left, insort
from contextlib import suppress
from typing import Final

from shared.errors import Overloaded, TooLarge
from shared.kv.device_arena import DeviceArena

_SEAL_FUTURE_WRITE: Final = 0x0010  # Linux 5.1; not yet in Python 3.11's fcntl
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, Linux 5.14; not in Python's mmap
_TOUCH_BYTES: Final = 2 << 20  # madvise holds the GIL, so a bit at a time


class Ranges:
    """Which parts of [0, size) are free. Pure: first fit from the low end, freed neighbours grow together."""

    def __init__(self, size: int, alignment: int) -> None:
        self.size = size - size % alignment
        self.alignment = alignment
        self._free: list[tuple[int, int]] = [(0, self.size)] if self.size else []  # (start, stop), sorted, apart
        self._held: dict[int, int] = {}

    @property
    def held_bytes(self) -> int:
        """Given out, alignment included."""
        return sum(stop - start for start, stop in self._held.items())

    @property
    def free(self) -> list[tuple[int, int]]:
        """The free parts, low end first."""
        return list(self._free)

    def rounded(self, nbytes: int) -> int:
        """What a range of so many bytes takes up."""
        return -(-max(nbytes, 1) // self.alignment) * self.alignment

    def take(self, nbytes: int) -> int | None:
        """The start of a range of at least so many bytes, or None when no free part is long enough."""
        need = self.rounded(nbytes)
        for index, (start, stop) in enumerate(self._free):
            if stop - start >= need:
                self._free[index : index + 1] = [(start + need, stop)] if stop - start > need else []
                self._held[start] = start + need
                return start
        return None

    def give_back(self, start: int) -> None:
        """Free the range that starts there. Raises KeyError when none does."""
        stop = self._held.pop(start)
        index = bisect_left(self._free, (start, stop))
        if index < len(self._free) and self._free[index][0] == stop:
            stop = self._free.pop(index)[1]
        if index and self._free[index - 1][1] == start:
            start = self._free.pop(index - 1)[0]
        insort(self._free, (start, stop))


class Range:
    """One reserved range of an arena; a Staging."""

    __slots__ = ("_pins", "_view", "arena", "nbytes", "offset")

    def __init__(self, arena: "Arena", offset: int, view: memoryview) -> None:
        self.arena = arena
        self.offset = offset
        self.nbytes = len(view)
        self._view: memoryview | None = view
        self._pins = 0

    @property
    def view(self) -> memoryview:
        """Exactly the reserved bytes, writable. Raises ValueError after release: another may own the range by then."""
        if self._view is None:
            raise ValueError("this staging range was released")
        return self._view

    def release(self) -> None:
        """Give the range back; a second call does nothing. Whoever kept the view finds it released too."""
        if self._view is not None:
            with suppress(BufferError):  # a tensor over it lives on, unused
                self._view.release()
            self._view = None
            self.arena.on_device.discard(self.offset)
            self._give_back()

    def pin(self) -> None:
        """Nobody else may have the range, even when it is released, until `unpin` was called as often."""
        self._pins += 1

    def unpin(self) -> None:
        """End one `pin`."""
        self._pins -= 1
        if self._view is None:
            self._give_back()

    def _give_back(self) -> None:
        if not self._pins:
            self.arena._ranges.give_back(self.offset)  # noqa: SLF001  the other half of `reserve`


class Arena:
    """A bounded staging memory. `fd` is None on platforms without memfd; then only TCP can carry its ranges.

    `shared`: other processes of this user, which opened `path`, may write it.
    """

    def __init__(self, nbytes: int, *, shared: bool = False) -> None:
        if nbytes < 1:
            raise ValueError(f"an arena of {nbytes} bytes can hold nothing")
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._ranges = Ranges(size, mmap.PAGESIZE)
        self.fd: int | None = None
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("baton-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(self.fd, size)
                self._memory = mmap.mmap(self.fd, size)
                _seal(self.fd, shared=shared)
            except BaseException:
                os.close(self.fd)
                raise
        else:
            self._memory = mmap.mmap(-1, size)
        self._view = memoryview(self._memory)
        self._address = _address(self._view)
        self.device: DeviceArena | None = None
        """Where ranges may have their bytes instead of in this memory; set once, before the hand-off begins."""
        self.on_device: set[int] = set()
        """Offsets of the held ranges whose bytes are there. Marked in threads, after the bytes are complete."""

    @property
    def path(self) -> str | None:
        """What another process of this user opens to map the memory, while this one lives; None without a memfd."""
        return None if self.fd is None else f"/proc/{os.getpid()}/fd/{self.fd}"

    def offset_of(self, view: memoryview) -> int:
        """Where in the arena a view of it begins. Raises ValueError for memory that lies elsewhere."""
        offset = _address(view) - self._address
        if not 0 <= offset <= self.size - len(view):
            raise ValueError("the buffer does not lie in this arena")
        return offset

    @property
    def address(self) -> int:
        """Of its first byte, in this process."""
        return self._address

    @property
    def size(self) -> int:
        """In bytes."""
        return self._ranges.size

    @property
    def in_use(self) -> int:
        """Bytes reserved now, rounded up to pages."""
        return self._ranges.held_bytes

    def reserve(self, nbytes: int) -> Range:
        """A range of so many bytes; what it contains is left over.

        Raises Overloaded when no room is free now, TooLarge when it never can be.
        """
        if self._ranges.rounded(nbytes) > self.size:
            raise TooLarge(f"a KV buffer of {nbytes} bytes does not fit into the staging memory of {self.size} bytes")
        start = self._ranges.take(nbytes)
        if start is None:
            free = self.size - self.in_use
            raise Overloaded(f"no {nbytes} bytes of staging memory in one piece: {free} of {self.size} are free")
        return Range(self, start, self._view[start : start + nbytes])

    def touch(self, nbytes: int) -> None:
        """Bring the lowest `nbytes` into being now, so that the first buffers do not pay for it.

        May run in a thread. Where the kernel cannot, it does nothing.
        """
        with suppress(OSError, ValueError):  # ValueError: closed meanwhile
            for start in range(0, min(nbytes, self.size), _TOUCH_BYTES):
                self._memory.madvise(_POPULATE_WRITE, start, min(_TOUCH_BYTES, self.size - start))

    def close(self) -> None:
        """Give the memory back. Idempotent. What still refers to a view keeps the memory alive, not the descriptor."""
        self._view.release()
        with suppress(BufferError):  # a range's view, or a tensor over it, lives on; the mapping ends with it
            self._memory.close()
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) if len(view) else 0


def _seal(fd: int, *, shared: bool) -> None:
    """Nobody can shrink the memory under a reader, nor, unless it is shared, write it but through our own mapping."""
    shape = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    if not shared:
        with suppress(OSError):  # before Linux 5.1
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, shape | _SEAL_FUTURE_WRITE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, shape | fcntl.F_SEAL_SEAL)
