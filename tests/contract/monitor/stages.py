"""A monitor, standbys and workers that only live, in this process over real NATS and Redis, and an observer."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis

from services.local.probes import free_port
from services.monitor.service import Monitor
from services.standby.service import Standby
from shared import keys
from shared.becoming import Becoming
from shared.bus import Delivery
from shared.config import (
    Config,
    FleetSettings,
    InstanceSettings,
    MonitorSettings,
    Nats,
    RedisSettings,
    ScenarioSettings,
)
from shared.lifecycle import Service, serve
from shared.messages import (
    InstanceRecord,
    Link,
    Links,
    Member,
    Pulse,
    Role,
    ScenarioMap,
    decode,
)
from shared.nats_bus import NatsBus
from shared.stopping import Stopping
from shared.subjects import Subjects
from tests.probe_service import Probe
from tests.waiting import until

T = TypeVar("T")
TTL = 0.6
FLEET = FleetSettings(lease_ttl_s=TTL, heartbeat_s=0.05, drain_s=2.0, stop_s=5.0)


class Alive:
    """A service that runs in this process."""

    def __init__(self, service: Service, config: Config) -> None:
        self.service: Any = service
        self.config = config
        self.stopping = Stopping()
        self.task = asyncio.ensure_future(serve(service, config, self.stopping))

    async def stop(self) -> int:
        self.stopping.ask("the test ends")
        async with asyncio.timeout(20):
            return await asyncio.shield(self.task)

    async def vanish(self) -> None:
        """Fall silent without a word, as a killed process does: no heartbeat, no lease, no open port."""
        instance = self.service.instance
        await instance.vital.close()
        await instance.bus.close()


class Stage:
    """The servers, an observer, and whatever a test puts on."""

    def __init__(self, nats: Nats, redis: RedisSettings, stack: AsyncExitStack, observer: NatsBus) -> None:
        self.nats = nats
        self.redis = Redis.from_url(redis.url)
        self.settings = redis
        self.stack = stack
        self.observer = observer
        self.subjects = Subjects(nats.prefix)
        self.maps: list[ScenarioMap] = []
        self.pulses: list[Pulse] = []
        self.verified = True  # whether prefills say that they reach the decodes of their group

    async def listen(self) -> None:
        await self.observer.subscribe(self.subjects.map("chat"), lambda d: self.maps.append(_read(d, ScenarioMap)))
        await self.observer.subscribe(self.subjects.pulse(), lambda d: self.pulses.append(_read(d, Pulse)))
        await self.observer.flush(5)
        links = asyncio.ensure_future(self._keep_links())
        self.stack.push_async_callback(_end, links)

    async def _keep_links(self) -> None:
        """Say for the prefills of the last map, which are probes, what they would say of their links."""
        while True:
            for group in self.maps[-1].groups if self.maps else ():
                found = [Link(one.instance, one.epoch, self.verified) for one in group.decode]
                for one in group.prefill:
                    subject = self.subjects.links("chat", one.instance)
                    await self.observer.publish(subject, Links(one.instance, one.epoch, found))
            await asyncio.sleep(0.02)

    def put_on(self, service: Service, instance: str, **changes: Any) -> Alive:
        worker = service.role in (Role.PREFILL, Role.DECODE)
        config = Config(
            nats=self.nats,
            redis=self.settings,
            fleet=FLEET,
            monitor=MonitorSettings(port=free_port()),
            scenario=chat(),
            instance=InstanceSettings(id=instance, scenario="chat" if worker else "", group="main" if worker else ""),
        )
        alive = Alive(service, dataclasses.replace(config, **changes))
        self.stack.push_async_callback(alive.stop)
        return alive

    def worker(self, role: Role, instance: str) -> Alive:
        probe = Probe()
        probe.role = role
        return self.put_on(probe, instance)

    def standby(self, instance: str, *, willing: bool = True) -> Alive:
        """Put on a standby; what it is told to become is in `becoming.order`. One that is not willing refuses all."""
        made = Standby()
        environ = {"BATON_SCENARIO__CHAT__MODEL": "m", "BATON_SCENARIO__CHAT__ENGINE": "sim" if willing else "none"}
        made.becoming = Becoming([], environ)
        return self.put_on(made, instance)

    async def map_is(self, prefill: list[str], decode_: list[str]) -> ScenarioMap:
        await until(lambda: bool(self.maps) and members_of(self.maps[-1]) == (prefill, decode_), f"{prefill} {decode_}")
        return self.maps[-1]

    async def stored(self) -> ScenarioMap | None:
        data = await self.redis.get(keys.scenario_map("chat"))
        return decode(data, ScenarioMap) if data else None

    async def record(self, instance: str) -> InstanceRecord | None:
        data = await self.redis.get(keys.instance(instance))
        return decode(data, InstanceRecord) if data else None


async def _end(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _read(delivery: Delivery, kind: type[T]) -> T:
    value: T = decode(delivery.data, kind)
    return value


def members_of(scenario_map: ScenarioMap) -> tuple[list[str], list[str]]:
    groups = scenario_map.groups
    return (
        sorted(member.instance for group in groups for member in group.prefill),
        sorted(member.instance for group in groups for member in group.decode),
    )


def everybody(scenario_map: ScenarioMap) -> list[Member]:
    return [member for group in scenario_map.groups for member in (*group.prefill, *group.decode)]


async def eventually(check: Callable[[], Awaitable[object]], what: str) -> None:
    deadline = time.monotonic() + 15
    while not await check():
        assert time.monotonic() < deadline, f"within 15 s it did not happen that {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def set_up(nats: Nats, redis: RedisSettings) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        observer = await NatsBus.open(nats, service="observer")
        stack.push_async_callback(observer.close)
        made = Stage(nats, redis, stack, observer)
        stack.push_async_callback(made.redis.aclose)
        await made.listen()
        yield made


def chat(decode: int = 1, **more: Any) -> dict[str, ScenarioSettings]:
    """Settings of the one scenario, with so many decodes."""
    return {"chat": ScenarioSettings(model="m", engine="sim", decode=decode, **more)}


async def whole_fleet(stage: Stage, **changes: Any) -> tuple[Alive, Alive, Alive]:
    monitor = stage.put_on(Monitor(), "monitor-1", **changes)
    prefill, decode_ = stage.worker(Role.PREFILL, "prefill-1"), stage.worker(Role.DECODE, "decode-1")
    await stage.map_is(["prefill-1"], ["decode-1"])
    await until(lambda: all(one.joined for one in everybody(stage.maps[-1])), "all have joined")
    return monitor, prefill, decode_
