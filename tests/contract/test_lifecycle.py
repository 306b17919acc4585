"""One life of an instance over real NATS and Redis: start, ready, drain, stop, and what may go wrong on the way."""

import asyncio
import dataclasses
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import aiohttp
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.bus import Delivery
from shared.config import Config, FleetSettings, InstanceSettings, Nats, RedisSettings, ScenarioSettings
from shared.errors import Code, EngineFailed
from shared.leases import Confirmed, Lease
from shared.lifecycle import serve
from shared.messages import (
    AssignRole,
    Done,
    Drain,
    InstanceRecord,
    Pulse,
    Rejected,
    Reload,
    Reloaded,
    Role,
    State,
    Status,
    decode,
)
from shared.nats_bus import NatsBus
from shared.reloading import Reloading
from shared.stopping import Stopping
from shared.subjects import Subjects
from tests.probe_service import Probe
from tests.servers import NatsServer, RedisServer
from tests.waiting import until

T = TypeVar("T")
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


@pytest.fixture
async def begin(nats_settings: Nats, redis_settings: RedisSettings) -> AsyncIterator[Begin]:
    lives: list[Life] = []

    async def begin(
        probe: Probe | None = None, *, nats: Nats | None = None, redis: RedisSettings | None = None, **changes: object
    ) -> Life:
        config = dataclasses.replace(configured(nats or nats_settings, redis or redis_settings), **changes)  # type: ignore[arg-type]
        observer = await NatsBus.open(config.nats, service="tests")
        life = Life(config, probe or Probe(), observer)
        lives.append(life)
        return life

    yield begin
    for life in lives:
        await life.stop()
        await life.observer.close()


async def test_a_whole_life_is_seen_by_bus_redis_and_health(begin: Begin, redis_client: Redis) -> None:
    life = await begin()
    await life.ready()
    instance = life.probe.instance
    assert instance is not None
    assert (await life.get("/healthz"))[0] == 200
    assert await life.get("/readyz") == (200, "ready\n")
    status, metrics = await life.get("/metrics")
    assert status == 200
    assert "process_resident_memory_bytes" in metrics
    assert "baton_bus_published_total" in metrics
    await until(lambda: any(s.state is State.READY for s in life.heard), "it is heard to be ready")
    ready = next(s for s in life.heard if s.state is State.READY)
    assert (ready.instance, ready.scenario, ready.group, ready.role) == ("decode-1", "chat", "g1", Role.DECODE)
    assert (ready.slots, ready.free, ready.steps, ready.busy, ready.kv_free_bytes) == (4, 3, 7, True, 1024)
    assert ready.epoch == instance.epoch > (0, 0)
    assert await redis_client.exists(keys.lease("decode-1"))

    assert await life.stop() == 0
    record = await life.record(redis_client)
    assert (record.state, record.reason, record.load, record.epoch) == (State.STOPPED, "the test ends", 0, ready.epoch)
    assert not await redis_client.exists(keys.lease("decode-1"))
    assert 0 < await redis_client.pttl(keys.instance("decode-1")) <= keys.RECORD_TTL_MS
    assert life.probe.drained_with == [5.0]
    assert life.probe.closed
    await until(lambda: life.heard[-1].state is State.STOPPED, "the end is heard")
    states = list(dict.fromkeys(s.state for s in life.heard))
    assert states == [State.STARTING, State.READY, State.DRAINING, State.STOPPED]
    assert [s.number for s in life.heard] == sorted({s.number for s in life.heard})


async def test_while_it_starts_it_is_alive_but_not_ready(begin: Begin, redis_client: Redis) -> None:
    life = await begin(Probe(open_s=60))
    await until(lambda: life.probe.instance is not None, "it starts")
    assert await life.get("/readyz") == (503, "starting\n")
    assert (await life.get("/healthz"))[0] == 200
    assert (await life.record(redis_client)).state is State.STARTING
    assert await life.stop() == 0
    assert life.probe.closed
    assert life.probe.drained_with == []
    assert (await life.record(redis_client)).state is State.STOPPED


async def test_a_service_that_cannot_open_fails_with_its_reason(begin: Begin, redis_client: Redis) -> None:
    life = await begin(Probe(fails=EngineFailed("the model does not fit", fatal=True)))
    assert await life.ended() == 1
    record = await life.record(redis_client)
    assert (record.state, record.reason) == (State.FAILED, "the model does not fit")
    assert not await redis_client.exists(keys.lease("decode-1"))


async def test_a_bug_in_a_service_is_a_failure_too(begin: Begin) -> None:
    life = await begin(Probe(fails=ZeroDivisionError("oops")))
    assert await life.ended() == 1
    assert life.stopping.reason == "ZeroDivisionError: oops"


async def test_a_second_instance_of_the_same_id_is_refused_and_the_first_goes_on(begin: Begin) -> None:
    first = await begin()
    await first.ready()
    second = await begin()
    assert await second.ended() == 1
    assert "another living instance has the id 'decode-1'" in second.stopping.reason
    assert second.probe.instance is None  # it never loaded a model
    assert first.state is State.READY


async def test_the_lease_of_a_dead_holder_is_waited_for(begin: Begin, redis_client: Redis) -> None:
    dead = await Lease(redis_client, "decode-1", TTL).confirm()
    assert isinstance(dead, Confirmed)
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None
    assert life.probe.instance.epoch > dead.epoch


async def test_losing_the_lease_to_another_owner_is_fatal(begin: Begin, redis_client: Redis) -> None:
    life = await begin()
    await life.ready()
    await redis_client.hset(keys.lease("decode-1"), "owner", "somebody else")
    assert await life.ended() == 1
    assert "another instance has taken the lease" in life.stopping.reason
    assert life.probe.drained_with == []  # who is not the owner has nothing to finish


async def test_a_closed_connection_to_nats_is_fatal(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None
    bus = life.probe.instance.bus
    assert isinstance(bus, NatsBus)
    await bus._nc.publish("x", bytes((1 << 20) - 8), headers={"a": "b" * 32})  # the server hangs up on it
    assert await life.ended() == 1
    assert "closed for good" in life.stopping.reason


async def test_nats_away_for_a_while_is_survived(begin: Begin, own_nats_server: NatsServer) -> None:
    life = await begin(nats=own_nats_server.settings(prefix="away"))
    await life.ready()
    own_nats_server.kill()
    await until(lambda: life.probe.instance is not None and not life.probe.instance.bus.connected, "it is noticed")
    assert await life.get("/readyz") == (503, "not connected to NATS\n")
    own_nats_server.start()
    before = len(life.heard)
    await until(lambda: len(life.heard) > before, "heartbeats are heard again")
    assert life.state is State.READY


async def test_stopping_while_nats_is_away_ends_in_time(begin: Begin, own_nats_server: NatsServer) -> None:
    life = await begin(nats=own_nats_server.settings(prefix="away"))
    await life.ready()
    own_nats_server.kill()
    await until(lambda: life.probe.instance is not None and not life.probe.instance.bus.connected, "it is noticed")
    assert await life.stop() == 0


async def test_redis_away_for_all_changes_nothing_and_the_epoch_rises_after(
    begin: Begin, own_redis_server: RedisServer
) -> None:
    life = await begin(redis=own_redis_server.settings())
    await life.ready()
    instance = life.probe.instance
    assert instance is not None
    before = instance.epoch
    own_redis_server.kill()
    failures = instance.stats.lease_unconfirmed
    await until(lambda: instance.stats.lease_unconfirmed > failures + 5, "the ttl is over several times")
    beats = instance.stats.heartbeats
    await until(lambda: instance.stats.heartbeats > beats + 3, "the heart beats on")
    assert not instance.cut_off
    assert await life.get("/readyz") == (200, "ready\n")
    own_redis_server.start()
    await until(lambda: instance.epoch > before, "the lease is taken again with a higher epoch")
    assert life.probe.broken == 0
    assert life.state is State.READY


async def test_stopping_while_redis_stands_still_ends_in_time(begin: Begin, own_redis_server: RedisServer) -> None:
    life = await begin(redis=own_redis_server.settings())
    await life.ready()
    own_redis_server.signal(signal.SIGSTOP)
    assert await life.stop() == 0
    own_redis_server.signal(signal.SIGCONT)


async def test_cut_off_alone_it_stops_acting_until_its_lease_is_back(
    begin: Begin, own_redis_server: RedisServer
) -> None:
    life = await begin(redis=own_redis_server.settings())
    await life.ready()
    instance = life.probe.instance
    assert instance is not None

    async def pulse() -> None:
        while True:
            await life.observer.publish(life.subjects.pulse(), Pulse("monitor-1", (1, 1)))
            await asyncio.sleep(TTL / 6)

    pulsing = asyncio.ensure_future(pulse())
    own_redis_server.kill()
    await until(lambda: life.probe.broken == 1, "what was begun is dropped")
    assert instance.cut_off
    assert await life.get("/readyz") == (503, "cut off from Redis\n")
    await until(lambda: life.heard[-1].state is State.DRAINING, "dispatchers are told")
    own_redis_server.start()
    await until(lambda: not instance.cut_off and life.heard[-1].state is State.READY, "it acts again")
    pulsing.cancel()
    await asyncio.wait({pulsing})
    assert life.state is State.READY


async def test_an_order_to_drain_is_answered_and_then_obeyed(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert await life.order(Drain(seconds=2.5)) == Done("decode-1")
    assert await life.ended() == 0
    assert life.probe.drained_with == [2.5]
    assert life.stopping.reason == "drained by order"


async def test_an_order_to_reload_is_answered_with_the_keys_that_wait_for_a_restart(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    life.fresh = dataclasses.replace(
        life.config,
        fleet=dataclasses.replace(life.config.fleet, drain_s=1.5, attempts=9),
        instance=InstanceSettings(id="another"),
    )
    assert await life.order(Reload()) == Reloaded("decode-1", ["fleet.attempts"])
    assert await life.stop() == 0
    assert life.probe.drained_with == [1.5]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (Drain(seconds=float("nan")), Code.BAD_REQUEST),
        (Drain(seconds=-1.0), Code.BAD_REQUEST),
        (Drain(seconds=1e9), Code.BAD_REQUEST),
        (AssignRole(Role.PREFILL, "chat", "g1"), Code.BAD_REQUEST),
        (b"\xc1 no message", Code.MALFORMED),
        (b"", Code.MALFORMED),
    ],
    ids=["nan", "negative", "huge", "assign", "garbage", "empty"],
)
async def test_an_order_that_cannot_be_obeyed_is_refused_with_its_reason(
    begin: Begin, order: Drain | AssignRole | bytes, code: Code
) -> None:
    life = await begin()
    await life.ready()
    answer = await life.order(order)
    assert isinstance(answer, Rejected)
    assert (answer.code, answer.instance, bool(answer.message)) == (code, "decode-1", True)
    assert not life.stopping.asked.is_set()


async def test_an_order_that_has_been_obeyed_is_answered_done_again(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    instance = life.probe.instance
    assert instance is not None
    assert await life.order(AssignRole(Role.DECODE, instance.scenario, instance.group)) == Done("decode-1")


async def test_bytes_that_are_no_pulse_change_nothing(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    await life.observer.publish(life.subjects.pulse(), b"\xff\xff")
    await life.observer.flush(5)
    assert await life.order(Drain(seconds=0.0)) == Done("decode-1")


async def test_the_failure_of_a_vital_task_ends_the_instance(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None

    async def die() -> None:
        raise EngineFailed("the device is gone", fatal=True)

    _ = life.probe.instance.vital.spawn(die(), name="steps")
    assert await life.ended() == 1
    assert life.stopping.reason == "steps failed: the device is gone"


async def test_the_failure_of_a_requests_task_ends_nothing(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    instance = life.probe.instance
    assert instance is not None

    async def die() -> None:
        raise RuntimeError("one request's bug")

    _ = instance.tasks.spawn(die(), name="request")
    await until(lambda: instance.tasks.failures == 1, "it is counted")
    assert life.state is State.READY


async def test_a_drain_that_overruns_its_seconds_is_cut_and_counts_as_failure(begin: Begin) -> None:
    fleet = dataclasses.replace(FLEET, drain_s=0.0)
    life = await begin(Probe(drain_s=60), fleet=fleet)
    await life.ready()
    assert await life.stop() == 1


async def test_a_requirement_of_the_service_keeps_it_from_being_ready(begin: Begin) -> None:
    life = await begin()
    await life.ready()
    assert life.probe.instance is not None
    reasons = ["no decode worker"]
    life.probe.instance.require(lambda: reasons[0])
    assert await life.get("/readyz") == (503, "no decode worker\n")
    reasons[0] = ""
    assert await life.get("/readyz") == (200, "ready\n")
