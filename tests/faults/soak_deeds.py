"""Does to a fleet what a schedule says, each fault in a task of its own, and undoes it when its time is over."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from shared.messages import Role
from tests.faults.nats_wire import NatsWire, Rule
from tests.faults.schedule import TO_LINES, TO_SERVERS, TO_TWO, Deed, Fault
from tests.faults.soak_field import Field, flush
from tests.faults.wire import Wire
from tests.servers import Server

BETWEEN_S: Final = 0.3
"""From the first of two deeds to the second."""
ENDED_S: Final = 40.0


class Deeds:
    """What is done to one fleet."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._cluster = field.cluster

    async def perform(self, faults: Sequence[Fault], started: float) -> None:
        """Do all of it, each at its time; returns when the last is undone."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, started + fault.at - time.monotonic()))
                _ = group.create_task(self._perform(fault), name=str(fault))

    async def _perform(self, fault: Fault) -> None:
        if fault.deed in TO_SERVERS:
            await self._server(fault)
        elif fault.deed in TO_TWO:
            await self._two(fault)
        elif fault.deed in (*TO_LINES, Deed.LOSSY, Deed.CORRUPT):
            await self._line(fault)
        else:
            await self._process(fault)

    async def _process(self, fault: Fault) -> None:
        assert fault.role is not None
        victims = self._field.there(fault.role)
        if not victims or (fault.alone and not await self._another_gateway()):
            self._field.say(f"skipped: {fault}")
            return
        name = victims[fault.pick % len(victims)]
        process = self._cluster.processes[name]
        self._field.say(f"{fault.deed} {name} for {fault.seconds:.2f} s")
        if fault.deed is Deed.FREEZE:
            await self._frozen(name, fault.seconds)
            return
        process.kill() if fault.deed is Deed.KILL else process.terminate()
        if fault.role in (Role.GATEWAY, Role.MONITOR):
            await process.ended(ENDED_S)
        await asyncio.sleep(fault.seconds)
        await self._field.replace(name, fault.role)
        await process.ended(ENDED_S)

    async def _another_gateway(self) -> bool:
        ready = [await self._cluster.is_ready(name) for name in self._field.there(Role.GATEWAY)]
        return len(ready) > 1 and all(ready)

    async def _frozen(self, name: str, seconds: float) -> None:
        process = self._cluster.processes[name]
        process.freeze()
        await asyncio.sleep(seconds)
        if process.alive:
            process.thaw()
            self._field.say(f"{name} goes on")

    async def _two(self, fault: Fault) -> None:
        assert fault.role is not None
        victims = self._field.there(fault.role)
        if len(victims) < 2:
            self._field.say(f"skipped: {fault}")
            return
        first = victims[fault.pick % len(victims)]
        second = victims[(fault.pick + 1) % len(victims)]
        self._field.say(f"{fault.deed}: {first}, {second}, for {fault.seconds:.2f} s")
        if fault.deed is Deed.PAUSE_KILL:
            away = asyncio.ensure_future(self._frozen(first, fault.seconds))
        else:
            away = asyncio.ensure_future(self._hurt_for(self._field.wired.nats[first], Deed.SILENT, fault.seconds))
        await asyncio.sleep(BETWEEN_S)
        self._cluster.processes[second].kill()
        await self._cluster.processes[second].ended()
        await self._field.replace(second, fault.role)
        await away

    async def _line(self, fault: Fault) -> None:
        assert fault.role is not None
        wires: dict[str, Wire] = {**getattr(self._field.wired, fault.line)}
        victims = [name for name in self._field.there(fault.role) if name in wires]
        if not victims:
            self._field.say(f"skipped: {fault}")
            return
        name = victims[fault.pick % len(victims)]
        self._field.say(f"{fault.deed} {name}'s line to {fault.line} for {fault.seconds:.2f} s")
        await self._hurt_for(wires[name], fault.deed, fault.seconds)
        self._field.say(f"{name}'s line to {fault.line} is well")

    async def _hurt_for(self, wire: Wire, deed: Deed, seconds: float) -> None:
        await hurt(wire, deed)
        await asyncio.sleep(seconds)
        await wire.heal()

    async def _server(self, fault: Fault) -> None:
        self._field.say(f"{fault.deed} for {fault.seconds:.2f} s")
        nats, redis = self._cluster.nats, self._cluster.redis
        doing: dict[Deed, Callable[[], Awaitable[object]]] = {
            Deed.NATS_KILL: lambda: _killed(nats, fault.seconds),
            Deed.NATS_FREEZE: lambda: _stopped(nats, fault.seconds),
            Deed.REDIS_KILL: lambda: _killed(redis, fault.seconds),
            Deed.REDIS_FREEZE: lambda: _stopped(redis, fault.seconds),
            Deed.REDIS_FLUSH: lambda: flush(self._cluster),
        }
        await doing[fault.deed]()
        self._field.say(f"over: {fault.deed}")


async def hurt(wire: Wire, deed: Deed) -> None:
    """Begin a fault of a line."""
    if deed is Deed.CUT:
        await wire.cut()
    else:
        BEGIN[deed](wire)


def _slow(wire: Wire) -> None:
    for way in (wire.up, wire.down):
        way.delay_s, way.jitter_s = 0.05, 0.02


def _slice(wire: Wire) -> None:
    wire.up.slice_bytes = wire.down.slice_bytes = 7


def _corrupt(wire: Wire) -> None:
    wire.up.flip_rate = 1e-4


def _lose(wire: Wire) -> None:
    assert isinstance(wire, NatsWire)
    wire.rules.append(Rule(drop=0.02, twice=0.05, late=0.05))


BEGIN: Final[dict[Deed, Callable[[Wire], None]]] = {
    Deed.RESET: Wire.reset,
    Deed.SILENT: Wire.hold,
    Deed.DEAF: lambda wire: wire.down.hold(),
    Deed.MUTE: lambda wire: wire.up.hold(),
    Deed.SLOW: _slow,
    Deed.SLICES: _slice,
    Deed.CORRUPT: _corrupt,
    Deed.LOSSY: _lose,
}


async def _killed(server: Server, seconds: float) -> None:
    server.kill()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.start)


async def _stopped(server: Server, seconds: float) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    server.signal(signal.SIGCONT)
