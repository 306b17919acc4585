"""Running instances around a probe, each watched from the bus, from Redis and through its health pages."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from redis.asyncio import Redis

from shared import keys
from shared.bus import Delivery
from shared.config import Config, FleetSettings, InstanceSettings, Nats, RedisSettings, ScenarioSettings
from shared.lifecycle import serve
from shared.messages import (
    AssignRole,
    Done,
    Drain,
    InstanceRecord,
    Rejected,
    Reload,
    Reloaded,
    State,
    Status,
    decode,
)
from shared.nats_bus import NatsBus
from shared.reloading import Reloading
from shared.stopping import Stopping
from shared.subjects import Subjects
from tests.probe_service import Probe
from tests.waiting import until

TTL = 0.6
FLEET = FleetSettings(lease_ttl_s=TTL, heartbeat_s=0.05, drain_s=5.0, stop_s=5.0)


def configured(nats: Nats, redis: RedisSettings, instance_id: str = "decode-1") -> Config:
    return Config(
        nats=nats,
        redis=redis,
        fleet=FLEET,
        scenario={"chat": ScenarioSettings(model="m", engine="sim")},
        instance=InstanceSettings(id=instance_id, scenario="chat", group="g1"),
    )


class Life:
    """A running instance, with an observer on the bus."""

    def __init__(self, config: Config, probe: Probe, observer: NatsBus) -> None:
        self.config = config
        self.probe = probe
        self.observer = observer
        self.stopping = Stopping()
        self.heard: list[Status] = []
        self.subjects = Subjects(config.nats.prefix)
        self.fresh = config  # what a reload finds
        self.running: asyncio.Task[int] = asyncio.ensure_future(self._run())

    async def _run(self) -> int:
        await self.observer.subscribe(self.subjects.status("chat"), self._hear)
        await self.observer.flush(5)
        return await serve(self.probe, self.config, self.stopping, Reloading(self.config, lambda: self.fresh))

    def _hear(self, delivery: Delivery) -> None:
        self.heard.append(decode(delivery.data, Status))

    @property
    def state(self) -> State | None:
        return self.probe.instance.state if self.probe.instance else None

    async def ready(self) -> None:
        await until(lambda: self.state is State.READY or self.running.done(), "the instance is ready")
        assert self.state is State.READY

    async def stop(self) -> int:
        self.stopping.ask("the test ends")
        return await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.running

    async def order(self, message: AssignRole | Drain | Reload | bytes) -> Done | Reloaded | Rejected:
        subject = self.subjects.control(self.config.instance.id)
        kinds = Done | Reloaded | Rejected
        answer: Done | Reloaded | Rejected = await self.observer.request(subject, message, kinds, timeout_s=5)
        return answer

    async def record(self, redis: Redis) -> InstanceRecord:
        data = await redis.get(keys.instance(self.config.instance.id))
        assert data is not None
        return decode(data, InstanceRecord)

    async def get(self, path: str) -> tuple[int, str]:
        assert self.probe.instance is not None
        async with aiohttp.ClientSession() as session, session.get(self.probe.instance.health_url + path) as answer:
            return answer.status, await answer.text()


Begin = Callable[..., Awaitable[Life]]
