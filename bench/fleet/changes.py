"""What changes while requests run: an instance dies, a model is upgraded, groups come and go by the clock.

A killed decode may hurt its own streams alone, and a substitute serves soon; an upgrade and a tide fail no request.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from bench.fleet.house import fleet
from bench.fleet.traffic import Client, Seen
from bench.table import Row
from shared.messages import ExplainOrder, GroupPhase, Member, ScenarioMap, UpgradeOrder
from tests.faults.cluster import Cluster

GAP_S: Final = 0.25
"""A stream has a token each 20 to 30 ms: a silence that long is a stall."""
HUNG_S: Final = 300.0
OPEN: Final = 24
TOML: Final = """
[scenario.chat]
prefill_slots = 4
ttft_slo_ms = 5000
[scenario.chat.ratio]
mode = "fixed"
[scenario.chat.scale]
{scale}
"""


async def rows() -> list[Row]:
    """Run the three."""
    return [*await _killed(), *await _upgraded(), *await _tide()]


# ---- a death ---------------------------------------------------------------------------------------------------------


async def _killed() -> list[Row]:
    async with fleet(prefills=2, decodes=3, standbys=1, toml=TOML.format(scale="")) as cluster:
        client, stop = Client(cluster.url(), seed=1, timed=True), asyncio.Event()
        fresh = Client(cluster.url(), seed=2)  # those that come after the death, and show where they are served
        load = asyncio.gather(
            client.closed_loop(lambda: (100, 500), OPEN, stop), fresh.closed_loop(lambda: (20, 4), 4, stop)
        )
        await asyncio.sleep(4)
        victim = (await cluster.holders())[0]
        held = (await cluster.metrics(victim))["baton_worker_streams"]
        killed = time.monotonic()
        cluster.processes[victim].kill()
        await _until(cluster, lambda found: any(one.joined for one in _decodes(found, "standby-1")))
        joined_s = time.monotonic() - killed
        while not (await cluster.metrics("standby-1")).get("baton_worker_streams"):
            _in_time(killed)
            await asyncio.sleep(0.05)
        serving_s = time.monotonic() - killed
        await asyncio.sleep(2)
        stop.set()
        await load
    stalled = [one for one in client.seen if _gap_s(one, killed) > GAP_S]
    longest = max(_gap_s(one, killed) for one in client.seen)
    failed = [one for one in (*client.seen, *fresh.seen) if one.error]
    _say("a decode killed", f"{held:.0f} of {OPEN} streams held, {len(stalled)} stalled, {len(failed)} failed")
    return [
        Row("killed: streams that stalled", len(stalled), "streams", "held by the killed", held),
        Row("killed: requests that failed", len(failed), "requests", "all", len(client.seen) + len(fresh.seen)),
        Row("killed: longest silence", longest, "s", "one step", 0.03),
        Row("killed: substitute joined after", joined_s, "s", "the aim", 5.0),
        Row("killed: substitute serves after", serving_s, "s", "the aim", 5.0),
    ]


def _decodes(found: ScenarioMap, instance: str) -> list[Member]:
    return [member for group in found.groups for member in group.decode if member.instance == instance]


def _gap_s(seen: Seen, killed: float) -> float:
    """The longest silence of a stream that lasted until after the kill."""
    pairs = itertools.pairwise(seen.chunks)
    return max((later - earlier for earlier, later in pairs if later > killed), default=0.0)


# ---- an upgrade ------------------------------------------------------------------------------------------------------


async def _upgraded() -> list[Row]:
    async with (
        fleet(prefills=3, decodes=3, standbys=0, toml=TOML.format(scale="")) as cluster,
        _load(cluster) as client,
    ):
        order = UpgradeOrder("chat", options={"decode_step_ms": 15}, canary=10, trial_s=10)
        start = time.monotonic()
        told = await cluster.order(order)
        while not (told := await cluster.order(ExplainOrder("chat"))).settled or told.revision == 0:
            _in_time(start)
            await asyncio.sleep(0.5)
        seconds = time.monotonic() - start
        found = await cluster.map()
    revisions = {group.revision for group in found.groups}
    sizes = sum(len(g.prefill) for g in found.groups), sum(len(g.decode) for g in found.groups)
    if revisions != {found.target} or found.target == 0 or sizes != (3, 3):
        raise RuntimeError(f"after the upgrade the map is {found}")
    return _no_loss("upgrade", client, seconds)


# ---- a tide ----------------------------------------------------------------------------------------------------------


async def _tide() -> list[Row]:
    rise = datetime.now(UTC).replace(second=0) + timedelta(minutes=2)
    ebb = rise + timedelta(minutes=1)
    table = ", ".join(f'"{at.minute} {at.hour} * * * = {groups}"' for at, groups in ((rise, 2), (ebb, 1)))
    scale = f"timetable = [{table}]"
    async with (
        fleet(prefills=1, decodes=2, standbys=3, toml=TOML.format(scale=scale)) as cluster,
        _load(cluster) as client,
    ):
        start = time.monotonic()
        await _until(cluster, lambda found: len(_open(found)) == 2)
        _say("tide", "two groups are open")
        await _until(cluster, lambda found: len(found.groups) == 1)
        _say("tide", "one group is left")
        seconds = time.monotonic() - start
    return _no_loss("tide", client, seconds)


def _open(found: ScenarioMap) -> list[str]:
    return [group.name for group in found.groups if group.phase is GroupPhase.OPEN]


# ---- both ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _load(cluster: Cluster) -> AsyncIterator[Client]:
    """Keep requests open around a change; it ends when each has."""
    client, stop = Client(cluster.url(), seed=2), asyncio.Event()
    load = asyncio.ensure_future(client.closed_loop(lambda: (300, 60), OPEN, stop))
    try:
        await asyncio.sleep(3)
        yield client
        await asyncio.sleep(2)
    finally:
        stop.set()
        await load


def _no_loss(what: str, client: Client, seconds: float) -> list[Row]:
    failed = [one for one in client.seen if one.error]
    _say(what, f"{len(client.seen)} requests, {len(failed)} failed, {seconds:.0f} s")
    return [
        Row(f"{what}: requests that failed", len(failed), "requests", "all", len(client.seen)),
        Row(f"{what}: took", seconds, "s", "one answer alone", 1.6),
    ]


async def _until(cluster: Cluster, shows: Callable[[ScenarioMap], bool]) -> None:
    start = time.monotonic()
    while not shows(await cluster.map()):
        _in_time(start)
        await asyncio.sleep(0.05)


def _in_time(start: float) -> None:
    if time.monotonic() - start > HUNG_S:
        raise RuntimeError(f"it has not come within {HUNG_S:g} s")


def _say(what: str, text: str) -> None:
    print(f"  {what}: {text}", flush=True)
