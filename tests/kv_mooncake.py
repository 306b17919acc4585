"""A stand-in for Mooncake's engine that copies within this process, at once or when it is told to."""

import ctypes
import sys
import threading
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import pytest

from shared.config import KvSettings
from tests.kv_ends import MIB, Ends

SIZE = 2 * MIB + 3
ROOM = 16 * MIB
GRACE_S = 0.5


class Written:
    """One write that was begun."""

    def __init__(self, source: int, target: int, nbytes: int) -> None:
        self.source, self.target, self.nbytes = source, target, nbytes
        self.status = 0

    def land(self, start: int = 0, stop: int | None = None) -> None:
        """Some of the bytes arrive."""
        stop = self.nbytes if stop is None else stop
        ctypes.memmove(self.target + start, self.source + start, stop - start)

    def end(self, status: int = 1) -> None:
        """The engine says how it ended."""
        self.status = status


class Fabric:
    """All engines of the process, and what is wrong with them."""

    def __init__(self) -> None:
        self.engines: WeakValueDictionary[str, Engine] = WeakValueDictionary()
        self.calls: list[tuple[Any, ...]] = []
        self.writes: list[Written] = []
        self.holds = False  # writes neither land nor end by themselves
        self.begins = True
        self.gate = threading.Event()  # a call to begin does not return before
        self.gate.set()
        self.answers = True
        self.refuses = ""  # the call that fails
        self.topology = '{"cpu:0": [["mlx5_0"], []]}'

    def make(self) -> "Engine":
        return Engine(self)


class Engine:
    """As `shared.kv.mooncake.TransferEngine` says."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._port = 15000 + len(fabric.calls)
        self._memory = range(0)
        self._own: dict[int, Written] = {}

    def initialize(self, host: str, metadata: str, protocol: str, device: str) -> int:
        self._fabric.calls.append(("initialize", host, metadata, protocol, device))
        self._fabric.engines[f"{host}:{self._port}"] = self
        return -1 if self._fabric.refuses == "initialize" else 0

    def get_rpc_port(self) -> int:
        return self._port

    def get_local_topology(self) -> str:
        return self._fabric.topology

    def register_memory(self, address: int, nbytes: int, location: str) -> int:
        self._fabric.calls.append(("register_memory", nbytes, location))
        self._memory = range(address, address + nbytes)
        return -1 if self._fabric.refuses == "register_memory" else 0

    def send_probe(self, segment: str) -> int:
        return 0 if self._fabric.answers and segment in self._fabric.engines else -102

    def transfer_submit_write(self, segment: str, source: int, target: int, nbytes: int) -> int:
        assert self._fabric.gate.wait(60)
        if not self._fabric.begins:
            return 0
        memory = self._fabric.engines[segment]._memory
        assert target in memory
        assert target + nbytes - 1 in memory
        assert source in self._memory
        write = Written(source, target, nbytes)
        if not self._fabric.holds:
            write.land()
            write.end()
        self._fabric.writes.append(write)
        self._own[len(self._fabric.writes)] = write
        return len(self._fabric.writes)

    def transfer_check_status(self, batch: int) -> int:
        status = self._own[batch].status
        if status in {1, -1}:
            del self._own[batch]  # asked again, it fails
        return status


def installed(monkeypatch: pytest.MonkeyPatch) -> Fabric:
    """Stand in for the package, for the length of a test."""
    fabric = Fabric()
    for name in ("MC_FORCE_TCP", "MC_LOG_LEVEL"):
        monkeypatch.setenv(name, "set by the test")  # and so taken back after it
    monkeypatch.setitem(sys.modules, "mooncake.engine", SimpleNamespace(TransferEngine=fabric.make))
    return fabric


def settings(**changed: Any) -> KvSettings:
    """Both ends use Mooncake over TCP, and no shared memory."""
    chosen = {"shared_memory": False, "mooncake": "tcp", "max_transfers": 4, "mooncake_grace_s": GRACE_S, **changed}
    return KvSettings(**chosen)


async def both_ends(**changed: Any) -> Ends:
    return await Ends.open("mooncake", settings(**changed), ROOM)
