"""Mooncake's transfer engine over one arena: writes that go straight into the registered memory of another process.

Owns the engine, the registration of the arena and the form of its addresses. Must not know tickets, nor who waits for
a write; that the control stays on a connection of ours is `mooncake_sender`'s and `mooncake_receiver`'s business.

A write that has begun cannot be called back: the engine has no abort, and its synchronous calls, which keep a core busy
while they wait, give up after `MC_TRANSFER_TIMEOUT` seconds without ending what they began. A write is therefore
submitted and then looked at, from a thread; both calls let go of the GIL. Making an engine, registering memory and
ending an engine (one second) hold it, which only a start and a stop see.

The engine asks nobody for a ticket: whoever reaches its ports, which are open on all addresses whatever `kv.host` says,
can read and write the whole arena. It belongs into a network of its own.
"""

import importlib
import json
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol, Self

from shared.config import KvSettings
from shared.errors import ConfigError
from shared.kv import tcp
from shared.kv.arena import Arena
from shared.messages import Endpoint

TRANSPORT: Final = "mooncake"
NONE: Final = "none"
_PACKAGES: Final = {
    "tcp": "mooncake-transfer-engine-non-cuda, or mooncake-transfer-engine with CUDA",
    "rdma": "mooncake-transfer-engine, or mooncake-transfer-engine-non-cuda without CUDA",
    "ascend": "mooncake-transfer-engine-npu",
}
_NO_BATCH: Final = (0, (1 << 64) - 1)  # what older engines answer
_DONE, _FAILED = 1, -1
_HOST_MEMORY: Final = {"ascend": "cpu:0"}  # it guesses otherwise; the others find out where memory lies


class TransferEngine(Protocol):
    """What we use of Mooncake's class of that name, 0.3.9 and later."""

    def initialize(self, host: str, metadata: str, protocol: str, device: str, /) -> int:
        """Open the ports; 0: well."""
        ...

    def get_rpc_port(self) -> int:
        """Where others ask it for its memory."""
        ...

    def get_local_topology(self) -> str:
        """As JSON: of each place of memory, the devices near and far."""
        ...

    def register_memory(self, address: int, nbytes: int, location: str, /) -> int:
        """Let others read and write it; 0: well."""
        ...

    def transfer_submit_write(self, segment: str, source: int, target: int, nbytes: int, /) -> int:
        """Begin a write; a number to ask with, or one of `_NO_BATCH`."""
        ...

    def transfer_check_status(self, batch: int, /) -> int:
        """1: done, -1: failed, and in both cases never ask again; else it goes on."""
        ...


class Place(NamedTuple):
    """What an endpoint's address says."""

    protocol: str
    control: str  # host:port of the receiver's TCP listener
    segment: str  # the name of its engine

    @classmethod
    def parse(cls, address: str) -> Self | None:
        """From `protocol://control/segment`; None for what has another form."""
        protocol, _, rest = address.partition("://")
        control, _, segment = rest.partition("/")
        return cls(protocol, control, segment) if protocol and control and segment else None


class Mooncake:
    """An engine with one arena registered. `begin` and `reach` block, and are called in threads."""

    def __init__(self, settings: KvSettings, arena: Arena) -> None:
        """Start the engine. Raises ConfigError."""
        self.protocol = settings.mooncake
        self._arena = arena
        _prepare(self.protocol, settings.mooncake_device)
        make = _load(self.protocol)
        with tcp.listen(settings.host, 0) as probe:
            host = tcp.address_of(probe, settings.advertise).rpartition(":")[0]
        engine: TransferEngine = make()
        device = settings.mooncake_device if self.protocol == "rdma" else ""
        if engine.initialize(host.strip("[]"), "P2PHANDSHAKE", self.protocol, device):
            raise ConfigError([f"Mooncake cannot start over {self.protocol}; its own log says why"])
        if self.protocol == "rdma" and not _devices(engine.get_local_topology()):
            raise ConfigError(["kv.mooncake is rdma, and Mooncake finds no RDMA device that it may use"])
        if engine.register_memory(arena.address, arena.size, _HOST_MEMORY.get(self.protocol, "*")):
            raise ConfigError([f"Mooncake cannot register {arena.size} bytes of staging memory; its own log says why"])
        self.segment = f"{host}:{engine.get_rpc_port()}"
        self._engine: TransferEngine | None = engine

    def endpoint(self, control: str) -> Endpoint:
        """How senders of the same protocol reach the arena; `control` is the receiver's TCP address."""
        return Endpoint(TRANSPORT, f"{self.protocol}://{control}/{self.segment}")

    def address_of(self, view: memoryview) -> int:
        """Where a view of the arena begins."""
        return self._arena.address + self._arena.offset_of(view)

    def reach(self, segment: str) -> None:
        """Make sure that an engine answers, where the version can. Raises OSError."""
        probe = getattr(self._live(), "send_probe", None)
        if probe is not None and probe(segment):
            raise ConnectionError(f"the Mooncake engine {segment} does not answer")

    def begin(self, segment: str, source: int, target: int, nbytes: int) -> int:
        """Begin to write from our arena into the other; a number for `ended`. Raises OSError when nothing began."""
        batch = self._live().transfer_submit_write(segment, source, target, nbytes)
        if batch in _NO_BATCH:
            raise ConnectionError(f"Mooncake cannot begin to write to {segment}")
        return batch

    def ended(self, batch: int) -> bool | None:
        """Whether the write came to its end, and (False) a bad one; None while it goes on. No more after an end."""
        status = self._live().transfer_check_status(batch)
        return None if status not in {_DONE, _FAILED} else status == _DONE

    def close(self) -> None:
        """End the engine, and with it whatever it still reads or writes. Not while a thread is in it. Idempotent."""
        self._engine = None

    def _live(self) -> TransferEngine:
        if self._engine is None:
            raise ConnectionError("the Mooncake engine is closed")
        return self._engine


def opened(settings: KvSettings, arena: Arena) -> Mooncake | None:
    """The engine that the settings ask for, if any. Raises ConfigError."""
    return None if settings.mooncake == NONE else Mooncake(settings, arena)


def _load(protocol: str) -> Any:  # noqa: ANN401  Mooncake ships no types
    try:
        return importlib.import_module("mooncake.engine").TransferEngine
    except (ImportError, AttributeError) as error:
        package = _PACKAGES[protocol]
        raise ConfigError([f"kv.mooncake is {protocol}, which needs the package {package}: {error}"]) from error


def _prepare(protocol: str, device: str) -> None:
    """Tell the engine by the environment, read at its import, and the NPU's runtime by a call what arguments do not."""
    os.environ.setdefault("MC_LOG_LEVEL", "WARNING")
    if protocol == "tcp":
        os.environ["MC_FORCE_TCP"] = "1"  # it takes RDMA devices otherwise where it finds any
    elif protocol == "ascend":
        try:
            failed = importlib.import_module("acl").rt.set_device(int(device or 0))
        except (ImportError, ValueError) as error:
            raise ConfigError([f"kv.mooncake is ascend, and the NPU {device or 0} cannot be used: {error}"]) from error
        if failed:
            raise ConfigError([f"kv.mooncake is ascend, and CANN cannot use the NPU {device or 0}: error {failed}"])


def _devices(topology: str) -> set[str]:
    """Names in what the engine found: {"cpu:0": [[near, ...], [far, ...]], ...}."""
    try:
        found = json.loads(topology)
    except ValueError:
        return set()
    places = found.values() if isinstance(found, Mapping) else ()
    return {name for place in places for names in place for name in names}
