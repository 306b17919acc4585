"""The monitor over real NATS and Redis, with real standbys and workers that do nothing but live."""

import asyncio
import dataclasses
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import pytest
from redis.asyncio import Redis

from services.local.probes import free_port
from services.monitor.book import Book
from services.monitor.leadership import NAME
from services.monitor.service import Monitor
from services.standby.service import Standby
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
from shared.errors import Unavailable
from shared.lifecycle import Service, open_redis, serve
from shared.messages import (
    Group,
    InstanceRecord,
    Member,
    Pulse,
    Role,
    ScenarioMap,
    State,
    Status,
    decode,
    encode,
)
from shared.nats_bus import NatsBus
from shared.stopping import Stopping
from shared.subjects import Subjects
from tests.probe_service import Probe
from tests.servers import RedisServer
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
        await until(lambda: bool(self.maps) and _members(self.maps[-1]) == (prefill, decode_), f"{prefill} {decode_}")
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


def _members(scenario_map: ScenarioMap) -> tuple[list[str], list[str]]:
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


@pytest.fixture
async def stage(nats_settings: Nats, redis_settings: RedisSettings) -> AsyncIterator[Stage]:
    async with set_up(nats_settings, redis_settings) as made:
        yield made


async def _whole_fleet(stage: Stage, **changes: Any) -> tuple[Alive, Alive, Alive]:
    monitor = stage.put_on(Monitor(), "monitor-1", **changes)
    prefill, decode_ = stage.worker(Role.PREFILL, "prefill-1"), stage.worker(Role.DECODE, "decode-1")
    await stage.map_is(["prefill-1"], ["decode-1"])
    return monitor, prefill, decode_


async def test_ready_workers_are_in_the_map_on_nats_and_in_redis_under_the_leaders_epoch(stage: Stage) -> None:
    await _whole_fleet(stage)
    stage.put_on(Standby(), "standby-1")
    await eventually(lambda: _holds_the_last_map(stage), "Redis holds the announced map")
    announced = await stage.map_is(["prefill-1"], ["decode-1"])
    await until(lambda: any(pulse.epoch == announced.epoch for pulse in stage.pulses), "the leader sent a pulse")
    record = await stage.record("decode-1")
    assert record is not None
    assert [member.epoch for group in announced.groups for member in group.decode] == [record.epoch]


async def _holds_the_last_map(stage: Stage) -> bool:
    return await stage.stored() == stage.maps[-1]


async def test_a_decode_that_vanishes_leaves_the_map_and_a_standby_takes_its_place(stage: Stage) -> None:
    _, _, lost = await _whole_fleet(stage)
    standby = stage.put_on(Standby(), "standby-1")
    await eventually(lambda: stage.record("standby-1"), "the standby is known")
    await lost.vanish()
    await stage.map_is(["prefill-1"], [])
    async with asyncio.timeout(15):
        assert await standby.task == 0
    assignment = standby.service.assignment
    assert (assignment.role, assignment.scenario, assignment.group) == (Role.DECODE, "chat", "main")
    stage.worker(Role.DECODE, "standby-1")  # what its process would become
    await stage.map_is(["prefill-1"], ["standby-1"])

    async def noted() -> bool:
        record = await stage.record("decode-1")
        return record is not None and record.state is State.FAILED and record.reason != ""

    await eventually(noted, "the record says failed")
    lost.stopping.ask("the test ends", failed=True)


async def test_a_worker_that_drains_leaves_the_map_at_once(stage: Stage) -> None:
    _, prefill, _ = await _whole_fleet(stage)
    assert await prefill.stop() == 0
    await stage.map_is([], ["decode-1"])


async def test_of_two_monitors_one_leads_and_the_other_takes_over_with_a_higher_epoch(stage: Stage) -> None:
    first, _, _ = await _whole_fleet(stage)
    stage.put_on(Monitor(), "monitor-2")
    await eventually(lambda: stage.record("monitor-2"), "the second monitor runs")
    before = stage.maps[-1]
    assert {pulse.instance for pulse in stage.pulses} == {"monitor-1"}
    assert await first.stop() == 0
    await until(lambda: stage.pulses[-1].instance == "monitor-2", "the second monitor pulses")
    await until(lambda: stage.maps[-1].epoch > before.epoch, "its map outranks the first one's")
    assert _members(stage.maps[-1]) == (["prefill-1"], ["decode-1"])


async def test_a_map_that_redis_lost_is_written_again(stage: Stage) -> None:
    await _whole_fleet(stage)
    await stage.redis.delete(keys.scenario_map("chat"))
    await eventually(stage.stored, "the map is back")
    assert _members(await stage.stored() or ScenarioMap("", 0, (0, 0))) == (["prefill-1"], ["decode-1"])


async def test_after_a_flush_of_redis_the_monitor_leads_again_and_nobody_was_lost(stage: Stage) -> None:
    await _whole_fleet(stage)
    before = stage.pulses[-1].epoch
    await stage.redis.flushall()
    await until(lambda: stage.pulses[-1].epoch > before, "the monitor leads under a later epoch")
    await eventually(stage.stored, "the map is back")
    await until(lambda: stage.maps[-1].epoch > before, "the map is announced under that epoch")
    assert all(_members(one)[1] in ([], ["decode-1"]) for one in stage.maps)
    await stage.map_is(["prefill-1"], ["decode-1"])


async def test_while_redis_stands_still_no_pulse_is_sent_and_nobody_is_removed(
    nats_settings: Nats, own_redis_server: RedisServer
) -> None:
    async with set_up(nats_settings, own_redis_server.settings()) as stage:
        await _whole_fleet(stage)
        own_redis_server.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(TTL * 2)
            pulses, maps = len(stage.pulses), len(stage.maps)
            await asyncio.sleep(TTL * 2)
            assert (len(stage.pulses), len(stage.maps)) == (pulses, maps)
            assert _members(stage.maps[-1]) == (["prefill-1"], ["decode-1"])
        finally:
            own_redis_server.signal(signal.SIGCONT)
        await until(lambda: len(stage.pulses) > pulses, "the monitor leads again")
        await stage.map_is(["prefill-1"], ["decode-1"])


async def test_a_status_that_is_none_and_one_under_another_name_change_nothing(stage: Stage) -> None:
    await _whole_fleet(stage)
    intruder = Status("intruder", (9, 9), Role.DECODE, State.READY, "chat", "main", 8, 8, number=1)
    await stage.observer.publish(stage.subjects.status("chat", "decode-1"), intruder)
    for data in (b"", b"\xc1", b"\x81", encode(Pulse("x", (1, 1))), bytes(1000)):
        await stage.observer.publish(stage.subjects.status("chat", "decode-1"), data)
        await stage.observer.publish(stage.subjects.map("chat"), data)
        await stage.observer.publish(stage.subjects.pulse(), data)
    await stage.observer.flush(5)
    stage.worker(Role.DECODE, "decode-2")
    await stage.map_is(["prefill-1"], ["decode-1", "decode-2"])


# ---- the dashboard ---------------------------------------------------------------------------------------------------


async def test_the_dashboard_shows_the_fleet_to_people_programs_and_prometheus(stage: Stage) -> None:
    monitor, _, _ = await _whole_fleet(stage)
    base = f"http://127.0.0.1:{monitor.config.monitor.port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/status") as answer:
            status = await answer.json()
        async with session.get(f"{base}/") as answer:
            page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
        async with session.get(f"{base}/metrics") as answer:
            metrics = await answer.text()
    assert {one["id"] for one in status["instances"]} >= {"prefill-1", "decode-1"}
    assert (status["monitor"], status["leading"], status["scenarios"][0]["ratio"]) == ("monitor-1", True, "1:1")
    assert "<code>decode-1</code>" in page
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert 'baton_map_members{group="main",role="decode",scenario="chat"} 1.0' in metrics
    assert "baton_monitor_leading 1.0" in metrics


async def test_a_taken_dashboard_port_ends_the_monitor_with_a_clear_error(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, _, _ = await _whole_fleet(stage)
    second = stage.put_on(Monitor(), "monitor-2", monitor=monitor.config.monitor)
    async with asyncio.timeout(15):
        assert await second.task == 1
    assert f"cannot listen on 127.0.0.1:{monitor.config.monitor.port} for the dashboard" in caplog.text


# ---- the book --------------------------------------------------------------------------------------------------------


def _map(epoch: tuple[int, int], version: int, *decodes: str) -> ScenarioMap:
    members = [Member(name, (1, 1)) for name in decodes]
    return ScenarioMap("chat", version, epoch, [Group("main", [], members)])


async def test_a_map_gives_way_to_a_later_one_only(redis_client: Redis) -> None:
    book = Book(redis_client)
    tries = [
        (_map((2, 5), 3), True),
        (_map((2, 5), 3), True),  # again: the first answer may have been lost
        (_map((2, 5), 2), False),
        (_map((2, 4), 99), False),
        (_map((1, 99), 99), False),
        (_map((2, 5), 4, "d1"), True),
        (_map((2, 6), 1), True),
        (_map((3, 1), 1, "d2"), True),
    ]
    for scenario_map, written in tries:
        assert await book.write_map(scenario_map) is written, scenario_map
    assert await book.maps() == (_map((3, 1), 1, "d2"),)


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"text", encode(Pulse("x", (1, 1))), b"\x80"])
async def test_what_is_no_map_gives_way_to_one(damage: bytes, redis_client: Redis) -> None:
    await redis_client.set(keys.scenario_map("chat"), damage)
    assert await Book(redis_client).maps() == ()
    assert await Book(redis_client).write_map(_map((1, 1), 1))


async def test_a_failure_is_noted_unless_the_instance_has_come_back(redis_client: Redis) -> None:
    book = Book(redis_client)
    record = InstanceRecord("d1", Role.DECODE, State.READY, (1, 5), "chat", "main", 77)
    await redis_client.set(keys.instance("d1"), encode(record))
    await book.write_failure("d1", (1, 4), "silent", None)
    assert await book.records() == {"d1": record}
    await book.write_failure("d1", (1, 5), "silent", None)
    failed = (await book.records())["d1"]
    assert (failed.state, failed.reason, failed.pid) == (State.FAILED, "silent", 77)


async def test_a_failure_of_one_without_a_record_is_noted_from_what_it_said(redis_client: Redis) -> None:
    status = Status("d1", (1, 5), Role.DECODE, State.READY, "chat", "main")
    await Book(redis_client).write_failure("d1", (1, 5), "silent", status)
    failed = (await Book(redis_client).records())["d1"]
    assert (failed.state, failed.role, failed.scenario) == (State.FAILED, Role.DECODE, "chat")


async def test_leases_are_read_with_the_leaders(redis_client: Redis) -> None:
    await redis_client.hset(keys.lease(NAME), mapping={"owner": "me", "boot": 1, "counter": 2})
    await redis_client.hset(keys.lease("d1"), mapping={"owner": "d", "boot": 7, "counter": 8})
    leases = await Book(redis_client).leases(NAME, ["d1", "d2"])
    assert (leases.leader, dict(leases.epochs)) == ("me", {"d1": (7, 8), "d2": None})


async def test_without_redis_every_page_of_the_book_is_unavailable() -> None:
    async with open_redis(Config(redis=RedisSettings(url="redis://127.0.0.1:1/0"))) as nowhere:
        book = Book(nowhere)
        for call in (book.maps(), book.records(), book.leases(NAME, []), book.write_map(_map((1, 1), 1))):
            with pytest.raises(Unavailable, match="Redis does not answer"):
                await call
        with pytest.raises(Unavailable, match="Redis does not answer"):
            await book.write_failure("d1", (1, 1), "silent", None)
