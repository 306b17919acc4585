"""NATS and Redis die, freeze, forget and come back while streams run (F9, F11).

Streams go on or pause and go on, epochs never go back, and afterwards everybody is on the map.
"""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from shared import keys
from shared.messages import Epoch
from tests.faults.cluster import Cluster, cluster
from tests.faults.load import Load, fresh
from tests.servers import NatsServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
STREAMS, TOKENS = 8, 500


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path_factory.mktemp("servers"), monitors=2) as fleet:
        yield fleet


async def epochs(fleet: Cluster) -> dict[str, Epoch]:
    """What each instance's lease says now; nothing of those that hold none."""
    client = Redis.from_url(fleet.redis.settings().url)
    try:
        held = {name: await client.hmget(keys.lease(name), "boot", "counter") for name in fleet.processes}
    finally:
        await client.aclose()
    return {name: (int(boot), int(counter)) for name, (boot, counter) in held.items() if boot}


async def judge(fleet: Cluster, load: Load, before: dict[str, Epoch]) -> None:
    """Streams whole, everybody back with an epoch that is not older, nothing held, new requests served."""
    await load.whole()
    deadline = time.monotonic() + 30
    while len(now := await epochs(fleet)) < len(fleet.processes) or not await _all_on_the_map(fleet):
        assert time.monotonic() < deadline, f"not everybody is back: {now}"
        await asyncio.sleep(0.1)
    assert {name: epoch for name, epoch in now.items() if epoch < before[name]} == {}
    await fresh(fleet.url(), seed=2)
    await fleet.quiet()
    assert [name for name, process in fleet.processes.items() if not process.alive] == []


async def _all_on_the_map(fleet: Cluster) -> bool:
    seen = [await fleet.metrics(name) for name in ("monitor-1", "monitor-2")]
    return any(one["baton_monitor_leading"] and one.get("baton_map_members") == 4 for one in seen)


# ---- NATS


async def nats_away(server: NatsServer, seconds: float) -> None:
    server.kill()
    await asyncio.sleep(seconds)
    server.start()


@pytest.mark.parametrize("seconds", [0.2, *(pytest.param(s, marks=pytest.mark.long) for s in (5, 90, 150))])
@pytest.mark.timeout(300)
async def test_nats_dies_and_comes_back(fleet: Cluster, seconds: float) -> None:
    before = await epochs(fleet)
    load = Load(fleet.url(), STREAMS, TOKENS, seed=1, timeout_s=seconds + 90)
    await load.under_way()
    await nats_away(fleet.nats, seconds)
    await judge(fleet, load, before)


@pytest.mark.parametrize("seconds", [3, pytest.param(10, marks=pytest.mark.long)])
async def test_nats_is_frozen(fleet: Cluster, seconds: float) -> None:
    before = await epochs(fleet)
    load = Load(fleet.url(), STREAMS, TOKENS, seed=3)
    await load.under_way()
    fleet.nats.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    fleet.nats.signal(signal.SIGCONT)
    await judge(fleet, load, before)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_nats_leaves_as_a_lame_duck_and_another_takes_its_place(fleet: Cluster) -> None:
    before = await epochs(fleet)
    load = Load(fleet.url(), STREAMS, TOKENS, seed=5)
    await load.under_way()
    process = fleet.nats._process
    assert process is not None
    binary = str(process.args[0])  # type: ignore[index]
    subprocess.run([binary, "--signal", f"ldm={process.pid}"], check=True)  # noqa: ASYNC221  # it only sends a signal
    await asyncio.sleep(5)
    fleet.nats.kill()
    fleet.nats.start()
    await judge(fleet, load, before)


# ---- Redis


async def redis_away(fleet: Cluster, *, forgets: bool) -> None:
    fleet.redis.kill()
    if forgets:
        for file in (fleet.folder / "appendonlydir").glob("*"):
            file.unlink()
    await asyncio.sleep(1)
    fleet.redis.start()


async def redis_frozen(fleet: Cluster, seconds: float) -> None:
    fleet.redis.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    fleet.redis.signal(signal.SIGCONT)


async def command(fleet: Cluster, *words: str) -> None:
    client = Redis.from_url(fleet.redis.settings().url)
    await client.execute_command(*words)
    await client.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("dies", marks=pytest.mark.long),
        "dies and forgets",
        pytest.param("is frozen", marks=pytest.mark.long),
        "is frozen beyond every lease",
        "is flushed",
        "hangs up on all",
        "is full",
    ],
)
async def test_redis(fleet: Cluster, fault: str) -> None:
    before = await epochs(fleet)
    load = Load(fleet.url(), STREAMS, TOKENS, seed=7)
    await load.under_way()
    match fault:
        case "dies" | "dies and forgets":
            await redis_away(fleet, forgets=fault.endswith("forgets"))
        case "is frozen":
            await redis_frozen(fleet, 10)
        case "is frozen beyond every lease":
            await redis_frozen(fleet, 4.5)
        case "is flushed":
            await command(fleet, "FLUSHALL")
        case "hangs up on all":
            for _ in range(5):
                await command(fleet, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0.1)
        case "is full":
            await command(fleet, "CONFIG", "SET", "maxmemory", "1")
            await asyncio.sleep(4)
            await command(fleet, "CONFIG", "SET", "maxmemory", "0")
    await judge(fleet, load, before)
