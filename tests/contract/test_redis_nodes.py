"""Redis that moves: a master under Sentinels that dies or steps down, and a Redis Cluster whose slot changes nodes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.commands.access import Access
from services.commands.inspection import inspect
from services.gateway.access.caller import Caller
from services.gateway.access.keyring import _pairs
from services.gateway.access.line import Line
from services.monitor.book import Book
from shared import keys
from shared.config import Nats, RedisSettings
from shared.errors import BatonError, Unavailable
from shared.leases import Confirmed, Lease, Taken, open_lease_client
from shared.messages import InstanceRecord, Role, ScenarioMap, State, encode
from shared.policy.limits import Limits, Need
from shared.redis_client import open_redis_client
from shared.redis_nodes import SLOT
from shared.tasks import Tasks
from shared.tenancy.api_key import make
from shared.tenancy.register import open_register
from tests.contract.tenancy.ledgers import opened as ledger
from tests.redis_nodes import HOST, SERVICE, Cluster, Watched

TTL = 60.0
RECORD = InstanceRecord("d1", Role.DECODE, State.READY, (1, 1))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    servers = Watched(tmp_path_factory.mktemp("watched"))
    yield servers
    servers.kill()


@pytest.fixture
def own_watched(tmp_path: Path) -> Iterator[Watched]:
    servers = Watched(tmp_path)
    yield servers
    servers.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    servers = Cluster(tmp_path_factory.mktemp("cluster"), SLOT)
    yield servers
    servers.kill()


@asynccontextmanager
async def opened(settings: RedisSettings) -> AsyncIterator[Redis]:
    client = open_redis_client(settings.url, settings.timeout_s)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def line_to(settings: RedisSettings) -> AsyncIterator[Line]:
    line, tasks = Line(settings), Tasks("a test")
    _ = tasks.spawn(line.run(), name="line")
    try:
        yield line
    finally:
        assert await tasks.close() == []
        await line.close()


async def confirmed(lease: Lease) -> Confirmed:
    """Ask until Redis answers again."""
    async with asyncio.timeout(30):
        while True:
            try:
                outcome = await lease.confirm()
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                assert isinstance(outcome, Confirmed)
                return outcome


async def asked(line: Line, *command: str) -> object:
    """Ask until the line stands again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await line.ask(*command)
            except BatonError:
                await asyncio.sleep(0.02)


@pytest.mark.long
async def test_a_master_that_steps_down_is_left(own_watched: Watched) -> None:
    watched = own_watched
    settings = watched.settings()
    async with opened(settings) as client, line_to(settings) as line:
        await client.set(keys.FENCE, 1)
        assert await line.ask("GET", keys.FENCE) == b"1"
        sentinel = watched.sentinels[0]
        async with Redis(host=HOST, port=sentinel.port, password=sentinel.password) as told:
            await agreed(told)
        async with (
            asyncio.timeout(30),
            Redis(host=HOST, port=watched.replica.port, password=watched.master.password) as new,
        ):
            while (await new.role())[0] != b"master":  # type: ignore[misc]  # noqa: ASYNC110  another process
                await asyncio.sleep(0.02)
            while True:  # for a moment the old one still takes writes, which are lost
                try:
                    await client.set(keys.FENCE, 2)
                    await asked(line, "SET", keys.BOOT, "3")
                except RedisError:
                    await asyncio.sleep(0.02)
                if await new.mget(keys.FENCE, keys.BOOT) == [b"2", b"3"]:
                    break


async def test_a_sentinel_that_is_silent_leaves_time_to_ask_the_next(watched: Watched) -> None:
    with socket.create_server((HOST, 0)) as silent:
        url = watched.settings().url.replace(f"@{HOST}", f"@{HOST}:{silent.getsockname()[1]},{HOST}")
        async with opened(RedisSettings(url, timeout_s=3)) as client:
            assert await client.ping()


async def test_when_the_master_dies_leases_go_on_at_the_replica_and_no_epoch_goes_back(watched: Watched) -> None:
    settings = watched.settings()
    client = open_lease_client(settings, TTL)
    lease, later = Lease(client, "d1", TTL), Lease(client, "d2", TTL)
    async with line_to(settings) as line, opened(settings) as plain:
        before = await confirmed(lease)
        assert await line.ask("SET", keys.instance("d1"), encode(RECORD)) == b"OK"
        assert await plain.wait(1, 5000) == 1  # type: ignore[misc]  # the replica has it
        watched.master.kill()
        after = await confirmed(lease)
        assert after.epoch >= before.epoch
        assert (await confirmed(later)).epoch[0] > before.epoch[0]  # another process: its counter may lie behind
        assert await asked(line, "GET", keys.instance("d1")) == encode(RECORD)
        access = Access(Nats(), settings, "operator", 1.0, "")
        assert [one["id"] for one in (await asyncio.to_thread(inspect, access))["instances"]] == ["d1"]
    await client.aclose()


async def test_without_any_sentinel_a_call_fails_as_redis_away_does() -> None:
    async with opened(RedisSettings(f"redis+sentinel://{HOST}:1/{SERVICE}")) as client:
        with pytest.raises(RedisError, match="No master found"):
            await client.ping()


async def test_a_cluster_holds_leases_maps_keys_and_limits_in_one_slot(cluster: Cluster) -> None:
    settings = cluster.settings()
    async with opened(settings) as client:
        lease = Lease(client, "d1", TTL)
        held = await confirmed(lease)
        assert isinstance(await Lease(client, "d1", TTL).confirm(), Taken)
        book = Book(client)
        assert (await book.leases("leader", ["d1", "d2"])).epochs == {"d1": held.epoch, "d2": None}
        await client.set(keys.instance("d1"), encode(RECORD))
        assert await book.records() == {"d1": RECORD}
        chat = ScenarioMap("chat", 1, held.epoch)
        assert await book.write_map(chat)
        assert not await book.write_map(of_an_older_leader(chat))
        assert await book.maps() == (chat,)
    async with open_register(settings) as register:
        kept, _ = make("acme", ["chat"], now=1, lifetime_s=0, name="one")
        entry = await register.create(kept, "me")
        assert await register.all() == [kept]
        assert await register.last() == entry
    async with opened(settings) as client:  # as gateways follow what happens to keys
        [(stream, [(name, _)])] = _pairs(await client.xread({keys.API_KEYS: "0"}))
        assert (stream, name) == (keys.API_KEYS.encode(), entry.encode())
    async with ledger(settings) as limits:
        grant = await limits.admit(Caller("acme", "k1"), "chat", Limits(streams=1), Need(10, 1))
        limits.settle(grant, 10)
    with cluster.owner.client() as owner:
        names = {name.decode() for name in owner.scan_iter()}
    assert {"{baton}:lease:d1", "{baton}:fence", "{baton}:boot", "{baton}:map:chat", "{baton}:keys"} <= names
    assert all(name.startswith("{baton}:") for name in names)


async def test_when_the_slot_moves_its_new_node_is_found_and_epochs_rise(cluster: Cluster) -> None:
    async with opened(cluster.settings()) as client, line_to(cluster.settings()) as line:
        lease = Lease(client, "d3", TTL)
        before = await confirmed(lease)
        assert await line.ask("PING") == b"PONG"
        await asyncio.to_thread(cluster.move)
        with pytest.raises(Unavailable):
            await lease.confirm()
        assert (await confirmed(lease)).epoch > before.epoch
        assert await asked(line, "EXISTS", keys.lease("d3")) == 1


async def agreed(sentinel: Redis) -> None:
    """Tell a Sentinel to make another master, until it knows the replica well enough."""
    async with asyncio.timeout(30):
        while True:
            try:
                await sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
            except RedisError:
                await asyncio.sleep(0.1)
            else:
                return


def of_an_older_leader(scenario: ScenarioMap) -> ScenarioMap:
    """The same map, later, of a leader that was before."""
    return ScenarioMap(scenario.scenario, 9, (scenario.epoch[0] - 1, 1))
