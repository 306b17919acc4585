"""A device arena without a device: its memory is a memfd of its own, which a peer opens by path.

What a test wants to happen to it is said by its fields; everything else is done as a real one does it.
"""

import mmap
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shared.kv.device_arena import DeviceError
from shared.kv.layout import checksum, chunk_ranges

CHUNK = 64 << 10


class FakeDevice:
    """A DeviceArena; with torch, also what the torch engine wants of one."""

    def __init__(self, size: int, kind: str = "fake") -> None:
        self.size = size
        self.kind = kind
        self._fd = os.memfd_create("device")
        os.ftruncate(self._fd, size)
        self._memory = mmap.mmap(self._fd, size)
        self.opened = 0  # peers that are open now
        self.opens = 0  # ever
        self.apart = ""  # why no peer can be opened
        self.broken = ""  # why nothing is copied
        self.slow = threading.Event()  # while set, copies and checksums stand still after their first chunk
        self.halfway = threading.Event()
        self.in_use = 0  # threads in the memory
        self.to_hosts = 0

    @property
    def handle(self) -> bytes:
        return f"/proc/{os.getpid()}/fd/{self._fd}".encode()

    def __getitem__(self, place: slice) -> bytes:
        return self._memory[place]

    def __setitem__(self, place: slice, data: bytes) -> None:
        self._memory[place] = data

    def open(self, handle: bytes) -> "_FakePeer":
        self.opens += 1
        if self.apart:
            raise DeviceError(self.apart)
        try:
            with open(handle, "rb") as file:  # noqa: PTH123
                memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except OSError as error:
            raise DeviceError(str(error)) from error
        self.opened += 1
        return _FakePeer(self, memory)

    def checksum(self, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        return self._work(lambda: self._sum(offset, nbytes, still_wanted), still_wanted)

    def to_host(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> None:
        def copy() -> None:
            view[:] = self._memory[offset : offset + len(view)]

        self.to_hosts += 1
        self._work(copy, still_wanted)

    def tensor(self, offset: int, nbytes: int) -> Any:
        import torch

        return torch.frombuffer(self._memory, dtype=torch.uint8)[offset : offset + nbytes]

    def finish(self) -> None:
        pass

    def close(self) -> None:
        assert not self.in_use
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with suppress(BufferError):  # a tensor over it lives on
            self._memory.close()

    def _sum(self, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        with memoryview(self._memory) as memory, memory[offset : offset + nbytes] as view:
            return checksum(view, still_wanted)

    def _work(self, work: Callable[[], Any], still_wanted: Callable[[], None]) -> Any:
        self.in_use += 1
        try:
            self.halfway.set()
            while self.slow.is_set():
                still_wanted()
                time.sleep(0.002)
            if self.broken:
                raise DeviceError(self.broken)
            return work()
        finally:
            self.in_use -= 1


class _FakePeer:
    def __init__(self, device: FakeDevice, memory: mmap.mmap) -> None:
        self._device = device
        self._memory = memory

    def fetch(self, source: int, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        def copy() -> bytes:
            for start, stop in chunk_ranges(nbytes, CHUNK):
                still_wanted()
                self._device[offset + start : offset + stop] = self._memory[source + start : source + stop]
            return self._device._sum(offset, nbytes, still_wanted)

        return self._device._work(copy, still_wanted)

    def close(self) -> None:
        self._memory.close()
        self._device.opened -= 1
