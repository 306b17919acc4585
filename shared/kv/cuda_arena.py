"""A device arena in the memory of an NVIDIA GPU; torch computes in it, the driver carries it across processes.

Owns the memory, the lanes that transfers run on beside the engine's own stream, and which peers' memory is open. A
killed peer leaves its memory readable for as long as it is open here, and ours is nobody's to write. Imports torch:
only engines may import this.
"""

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from shared.kv.cuda_driver import HANDLE_BYTES, Driver
from shared.kv.device_arena import DeviceError
from shared.kv.device_sums import Sums, digest
from shared.kv.layout import chunk_ranges

LANES: Final = 2
"""Transfers that run at once; one alone fills the device's memory bus."""
WAIT_S: Final = 60.0
"""After so long, a device that has not done what it was told is given up."""
LOOK_S: Final = 5e-5
BOUNCE_BYTES: Final = 8 << 20
_TURN_S: Final = 0.05
_MARK_BYTES: Final = 16

_ours: "WeakValueDictionary[bytes, CudaArena]" = WeakValueDictionary()
"""By handle: the driver opens no handle in the process that made it."""


class _Lane:
    """A stream with what a transfer needs. One thread's at a time."""

    def __init__(self, where: torch.device) -> None:
        self.stream = torch.cuda.Stream(where)  # type: ignore[no-untyped-call]
        self._bounce: list[Tensor] = []

    @property
    def bounce(self) -> list[Tensor]:
        """Two pieces of pinned host memory."""
        if not self._bounce:
            self._bounce = [torch.empty(BOUNCE_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        return self._bounce


class CudaArena:
    """A DeviceArena of so many bytes on the GPU of that index. Raises DeviceError when the memory cannot be had."""

    kind = "cuda"

    def __init__(self, nbytes: int, index: int) -> None:
        self._where = torch.device("cuda", index)
        self._driver = Driver(index)
        self.address = self._driver.allocate(nbytes)
        self.size = nbytes
        self._memory = torch.as_tensor(_Foreign(self.address, nbytes), device=self._where)
        self.handle = self._driver.export(self.address) + secrets.token_bytes(_MARK_BYTES)
        self._opened: dict[bytes, tuple[int, int]] = {}  # by handle: address, and by how many it is used
        self._opening = threading.Lock()
        self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for _ in range(LANES):
            self._lanes.put(_Lane(self._where))
        self._sums = Sums(self._where, nbytes)
        self._closed = False
        torch.cuda.synchronize(self._where)
        _ours[self.handle] = self

    def tensor(self, offset: int, nbytes: int) -> Tensor:
        """The bytes [nbytes] at the offset, for the engine."""
        return self._memory[offset : offset + nbytes]

    def finish(self) -> None:
        """Wait until the calling thread's stream has done what it was told."""
        torch.cuda.current_stream(self._where).synchronize()

    def open(self, handle: bytes) -> "_Peer":
        """See DeviceArena. A peer that is open already is opened once more at no cost."""
        ours = _ours.get(handle)
        if ours is not None:
            return _Peer(self, ours.address, b"")
        with self._opening:
            self._still_here()
            address, users = self._opened.get(handle, (0, 0))
            if not users:
                address = self._driver.open(handle[:HANDLE_BYTES])
            self._opened[handle] = address, users + 1
        return _Peer(self, address, handle)

    def checksum(self, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        """See DeviceArena."""
        with self._lane(still_wanted) as lane:
            sums = self._sums.begin(self.tensor(offset, nbytes), still_wanted)
            _settle(lane.stream)
            return digest(sums)

    def to_host(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> None:
        """See DeviceArena. Through pinned memory: a chunk comes while the one before it is copied on."""
        target = torch.frombuffer(view, dtype=torch.uint8)
        came = torch.cuda.Event()  # type: ignore[no-untyped-call]
        before: tuple[Tensor, Tensor] | None = None
        with self._lane(still_wanted) as lane:
            for place, (start, stop) in enumerate(chunk_ranges(len(view), BOUNCE_BYTES)):
                still_wanted()
                piece = lane.bounce[place % 2][: stop - start]
                piece.copy_(self.tensor(offset + start, stop - start), non_blocking=True)
                came.record(lane.stream)
                if before is not None:
                    before[0].copy_(before[1])
                _settle(came)
                before = target[start:stop], piece
            if before is not None:
                before[0].copy_(before[1])

    def fetch(self, source: int, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        """Copy from an address that can be read here; the checksum of the copy."""
        with self._lane(still_wanted) as lane:
            target = self.tensor(offset, nbytes)
            self._driver.copy(self.address + offset, source, nbytes, lane.stream.cuda_stream)
            sums = self._sums.begin(target, still_wanted)
            _settle(lane.stream)
            return digest(sums)

    def let_go(self, handle: bytes) -> None:
        """One user of a peer's memory less."""
        with self._opening:
            address, users = self._opened.pop(handle, (0, 0))
            if users > 1:
                self._opened[handle] = address, users - 1
            elif users:
                self._driver.close(address)

    def close(self) -> None:
        """Give the memory back, once no transfer runs. Idempotent. Raises DeviceError when one does not end."""
        with self._opening:
            if self._closed:
                return
            self._closed = True
        _ours.pop(self.handle, None)
        for _ in range(LANES):
            try:
                self._lanes.get(timeout=WAIT_S)
            except queue.Empty:
                raise DeviceError("a transfer on the device does not end") from None
        for address, _ in self._opened.values():
            self._driver.close(address)
        self._opened.clear()
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._driver.free(self.address)

    @contextmanager
    def _lane(self, still_wanted: Callable[[], None]) -> Iterator[_Lane]:
        """A lane for the calling thread, idle again at the end: no copy outlasts whoever asked for it."""
        lane = self._turn(still_wanted)
        try:
            with torch.cuda.device(self._where), torch.cuda.stream(lane.stream):
                try:
                    yield lane
                finally:
                    _settle(lane.stream)
        except RuntimeError as error:  # torch's, for whatever CUDA says
            raise DeviceError(f"the GPU failed: {error}") from error
        finally:
            self._lanes.put(lane)

    def _turn(self, still_wanted: Callable[[], None]) -> _Lane:
        while True:
            still_wanted()
            self._still_here()
            try:
                return self._lanes.get(timeout=_TURN_S)
            except queue.Empty:
                continue

    def _still_here(self) -> None:
        if self._closed:
            raise DeviceError("the device memory was given back")


class _Peer:
    """A PeerDevice. Without a handle it is of this process, and there is nothing to let go of."""

    def __init__(self, arena: CudaArena, address: int, handle: bytes) -> None:
        self._arena = arena
        self.address = address
        self._handle = handle

    def fetch(self, source: int, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        """See PeerDevice."""
        return self._arena.fetch(self.address + source, offset, nbytes, still_wanted)

    def close(self) -> None:
        """See PeerDevice."""
        if self._handle:
            self._arena.let_go(self._handle)
            self._handle = b""


class _Foreign:
    """Memory that torch has not allocated, as torch reads of it."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 2}


def _settle(what: torch.cuda.Stream | torch.cuda.Event) -> None:
    """Wait for the device. It is asked over and over, for a dead one would never wake us. Raises DeviceError."""
    give_up = time.monotonic() + WAIT_S
    while not what.query():
        if time.monotonic() > give_up:
            raise DeviceError(f"the GPU did not do its work within {WAIT_S:g} s")
        time.sleep(LOOK_S)
