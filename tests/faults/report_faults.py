"""What the report hurts, one fault after the other, and how it makes the fleet whole again.

A fleet is whole when the map that the monitor keeps lists as many living prefills and decodes as are wanted, and a
fresh request is served.
"""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.messages import Role, ScenarioMap, decode
from tests.faults.client import ask
from tests.faults.cluster import Cluster, cluster
from tests.faults.wired import Wired, wired

WANTED = 2
SPARE = 2
"""Standbys at the beginning of each run."""
LOOK_S = 0.05
WHOLE_S = 90.0
_names = itertools.count(100)


@dataclass
class Fleet:
    """A cluster, and what was hurt of it."""

    cluster: Cluster
    wires: Wired | None = None
    gateways: int = 1
    victims: list[str] = field(default_factory=list)
    whole_at: float = 0.0

    async def whole(self, *, standby: bool = False) -> None:
        """Wait until it is whole; `standby`: with standbys to spare."""
        give_up = time.monotonic() + WHOLE_S
        while not await self._is_whole(standby=standby):
            assert time.monotonic() < give_up, f"not whole: {await self.members()}"
            await asyncio.sleep(LOOK_S)
        self.whole_at = time.monotonic()

    async def _is_whole(self, *, standby: bool) -> bool:
        members = await self.members()
        if any(len(names) < WANTED for names in members.values()):
            return False
        if standby and not await self._has_standby(set().union(*members.values())):
            return False
        gateways = [n for n in range(1, self.gateways + 1) if f"gateway-{n}" not in self.victims]
        answers = [await ask(self.cluster.url(n), "fresh", 2, seed=1, timeout_s=10) for n in gateways]
        return all(one.whole for one in answers)

    async def members(self) -> dict[Role, set[str]]:
        """The living on the map."""
        client = Redis.from_url(self.cluster.redis.settings().url, socket_timeout=1.0)
        found: dict[Role, set[str]] = {Role.PREFILL: set(), Role.DECODE: set()}
        try:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                data = await client.get(keys.scenario_map("chat"))
                if isinstance(data, bytes):
                    for group in decode(data, ScenarioMap).groups:
                        found[Role.PREFILL] |= {one.instance for one in group.prefill}
                        found[Role.DECODE] |= {one.instance for one in group.decode}
        finally:
            await client.aclose()
        return {role: {name for name in names if self._lives(name)} for role, names in found.items()}

    def _lives(self, name: str) -> bool:
        process = self.cluster.processes.get(name)
        return process is not None and process.alive and not process.frozen and name not in self.victims

    async def _has_standby(self, busy: set[str]) -> bool:
        spare = [
            name
            for name, one in self.cluster.processes.items()
            if one.role is Role.STANDBY and one.alive and name not in busy
        ]
        if len(spare) < SPARE:
            await self.start(Role.STANDBY, f"standby-{next(_names)}")
            return False
        return all([await self.cluster.is_ready(name) for name in spare])

    async def start(self, role: Role, name: str) -> None:
        """Start an instance as the others were."""
        if self.wires is not None:
            await self.wires.start(role, name)
        else:
            await self.cluster.start(role, name)

    async def some(self, role: Role) -> str:
        """Name a member of a role: of the decodes, one that holds streams."""
        members = (await self.members())[role]
        if role is Role.DECODE:
            for name in members:
                if (await self.cluster.metrics(name))["baton_worker_streams"]:
                    return name
        return min(members)

    def kill(self, name: str) -> None:
        """As kill -9 does."""
        self.victims.append(name)
        self.cluster.processes[name].kill()


Step = Callable[[Fleet], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One row of the report."""

    hurt: Step
    mend: Step
    wires: bool = False
    gateways: int = 1


@asynccontextmanager
async def opened(fault: Fault, folder: Path) -> AsyncIterator[Fleet]:
    """Start a cluster for a fault."""
    counts = {"prefills": WANTED, "decodes": WANTED, "standbys": SPARE, "monitors": 2}
    if fault.wires:
        async with wired(folder, **counts) as hurt:  # type: ignore[arg-type]
            yield Fleet(hurt.cluster, hurt)
    else:
        async with cluster(folder, gateways=fault.gateways, **counts) as made:  # type: ignore[arg-type]
            yield Fleet(made, gateways=fault.gateways)


def killed(*roles: Role) -> Fault:
    """One of each of these roles dies."""

    async def hurt(fleet: Fleet) -> None:
        for role in roles:
            fleet.kill(await fleet.some(role))

    return Fault(hurt, forget)


def frozen(role: Role) -> Fault:
    """One of a role stands still for ever."""

    async def hurt(fleet: Fleet) -> None:
        name = await fleet.some(role)
        fleet.victims.append(name)
        fleet.cluster.processes[name].freeze()

    return Fault(hurt, forget)


async def forget(fleet: Fleet) -> None:
    """Bury the victims."""
    for name in fleet.victims:
        fleet.cluster.processes[name].kill()
        await fleet.cluster.processes.pop(name).ended()
    fleet.victims.clear()


async def nothing(_: Fleet) -> None:
    """Leave everything as it is."""


def killed_and_started(name: str) -> Fault:
    """One that keeps its name dies, and is started again after the run."""

    async def hurt(fleet: Fleet) -> None:
        fleet.kill(name)

    async def mend(fleet: Fleet) -> None:
        role = fleet.cluster.processes[name].role
        await forget(fleet)
        await fleet.start(role, name)
        await fleet.cluster.until_ready(name)

    return Fault(hurt, mend, gateways=2)


def away(server: str, seconds: float, *, frozen: bool = False) -> Fault:
    """A server is killed, or stands still, and is back after so long."""

    async def hurt(fleet: Fleet) -> None:
        hurt = fleet.cluster.nats if server == "nats" else fleet.cluster.redis
        if frozen:
            hurt.signal(signal.SIGSTOP)
        else:
            hurt.kill()
        await asyncio.sleep(seconds)
        if frozen:
            hurt.signal(signal.SIGCONT)
        else:
            await asyncio.to_thread(hurt.start)

    return Fault(hurt, nothing)


async def flush(fleet: Fleet) -> None:
    """Let Redis forget everything: leases, map, counters."""
    client = Redis.from_url(fleet.cluster.redis.settings().url)
    await client.flushall()
    await client.aclose()


def cut(line: str, seconds: float) -> Fault:
    """A decode that holds streams has a silent line for so long: what is sent stays on it."""

    async def hurt(fleet: Fleet) -> None:
        assert fleet.wires is not None
        wire = getattr(fleet.wires, line)[await fleet.some(Role.DECODE)]
        wire.hold()
        await asyncio.sleep(seconds)
        await wire.heal()

    return Fault(hurt, nothing, wires=True)


async def corrupt(fleet: Fleet) -> None:
    """Flip bits on the way to every decode, and let a prefill die so that all its streams cross it again."""
    assert fleet.wires is not None
    for wire in fleet.wires.kv.values():
        wire.up.flip_rate = 1e-5
    fleet.kill(await fleet.some(Role.DECODE))
    await asyncio.sleep(1.5)
    for wire in fleet.wires.kv.values():
        await wire.heal()


FAULTS: dict[str, Fault] = {
    "none": Fault(nothing, nothing),
    "decode killed": killed(Role.DECODE),
    "prefill killed": killed(Role.PREFILL),
    "prefill and decode killed at once": killed(Role.PREFILL, Role.DECODE),
    "decode frozen": frozen(Role.DECODE),
    "prefill frozen": frozen(Role.PREFILL),
    "gateway killed, client resumes": killed_and_started("gateway-1"),
    "leading monitor killed": killed_and_started("monitor-1"),
    "NATS killed, back after 0.5 s": away("nats", 0.5),
    "NATS frozen for 4 s": away("nats", 4.0, frozen=True),
    "Redis killed, back after 2 s": away("redis", 2.0),
    "Redis frozen for 5 s": away("redis", 5.0, frozen=True),
    "Redis flushed": Fault(flush, nothing),
    "decode cut from NATS for 5 s": cut("nats", 5.0),
    "decode cut from Redis for 6 s": cut("redis", 6.0),
    "decode killed, every KV push at risk of flipped bits": Fault(corrupt, forget, wires=True),
}
