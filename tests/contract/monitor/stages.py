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
from shared import keys
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

    async def listen(self) -> None:
        await self.observer.subscribe(self.subjects.map("chat"), lambda d: self.maps.append(_read(d, ScenarioMap)))
        await self.observer.subscribe(self.subjects.pulse(), lambda d: self.pulses.append(_read(d, Pulse)))
        await self.observer.flush(5)

    def put_on(self, service: Service, instance: str, **changes: Any) -> Alive:
        worker = service.role in (Role.PREFILL, Role.DECODE)
        config = Config(
            nats=self.nats,
            redis=self.settings,
            fleet=FLEET,
            monitor=MonitorSettings(port=free_port()),
            scenario={"chat": ScenarioSettings(model="m", engine="sim")},
            instance=InstanceSettings(id=instance, scenario="chat" if worker else "", group="main" if worker else ""),
        )
        alive = Alive(service, dataclasses.replace(config, **changes))
        self.stack.push_async_callback(alive.stop)
        return alive

    def worker(self, role: Role, instance: str) -> Alive:
        probe = Probe()
        probe.role = role
        return self.put_on(probe, instance)

    async def map_is(self, prefill: list[str], decode_: list[str]) -> ScenarioMap:
        await until(lambda: bool(self.maps) and members_of(self.maps[-1]) == (prefill, decode_), f"{prefill} {decode_}")
        return self.maps[-1]

    async def stored(self) -> ScenarioMap | None:
        data = await self.redis.get(keys.scenario_map("chat"))
        return decode(data, ScenarioMap) if data else None

    async def record(self, instance: str) -> InstanceRecord | None:
        data = await self.redis.get(keys.instance(instance))
        return decode(data, InstanceRecord) if data else None


def _read(delivery: Delivery, kind: type[T]) -> T:
    value: T = decode(delivery.data, kind)
    return value


def members_of(scenario_map: ScenarioMap) -> tuple[list[str], list[str]]:
    groups = scenario_map.groups
    return (
        sorted(member.instance for group in groups for member in group.prefill),
        sorted(member.instance for group in groups for member in group.decode),
    )


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


async def whole_fleet(stage: Stage, **changes: Any) -> tuple[Alive, Alive, Alive]:
    monitor = stage.put_on(Monitor(), "monitor-1", **changes)
    prefill, decode_ = stage.worker(Role.PREFILL, "prefill-1"), stage.worker(Role.DECODE, "decode-1")
    await stage.map_is(["prefill-1"], ["decode-1"])
    return monitor, prefill, decode_
