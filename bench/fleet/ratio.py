"""The ratio of prefills to decodes: what each fixed one brings, and what the controller makes of a wrong start.

P/D-Serve 1.2 and 1.6: throughput is min(n_p b_p / T_p, n_d b_d / T_d). A fleet of six serves chat, then the mix turns
to code: long prompts, short answers. Throughput is what a closed loop of so many requests completes a second.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bench.fleet.house import fleet
from bench.fleet.mixes import Draw, mix
from bench.fleet.traffic import Client
from bench.table import Row
from tests.faults.cluster import Cluster

WORKERS: Final = 6
OUTSTANDING: Final = 80
WARM_S, MEASURED_S = 12.0, 20.0
CALM_S: Final = 45.0
"""Without a change of the map: the controller has come to rest."""
LONGEST_S: Final = 300.0
TOML: Final = """
[scenario.chat]
prefill_slots = 2
ttft_slo_ms = 60000
queue_timeout_s = 120
prefix_affinity = false
[scenario.chat.ratio]
mode = "{mode}"
window_s = 8
hold_s = 3
rest_s = 4
least = 1
"""


@dataclass
class Found:
    """Requests a second, by prefills of a fleet of six; and the controller's: prefills, rate, seconds to get there."""

    fixed: dict[int, float]
    chosen: tuple[int, float, float] = (0, 0.0, 0.0)


async def rows() -> list[Row]:
    """Measure each fixed ratio under each mix, then the controller through both."""
    found = {"conv": Found({}), "code": Found({})}
    for prefills in range(1, WORKERS):
        toml = TOML.format(mode="fixed")
        async with fleet(prefills=prefills, decodes=WORKERS - prefills, toml=toml) as cluster:
            for name, one in found.items():
                async with _load(cluster, mix(name, prefills)[1]) as client:
                    one.fixed[prefills] = await _rate(client)
                _say(f"{name}, {prefills}:{WORKERS - prefills}", one.fixed[prefills])
    async with fleet(prefills=1, decodes=WORKERS - 1, toml=TOML.format(mode="auto")) as cluster:
        for name, one in found.items():
            async with _load(cluster, mix(name, 7)[1]) as client:
                prefills, seconds = await _at_rest(cluster)
                one.chosen = prefills, await _rate(client), seconds
            _say(f"{name}, the controller's {prefills}:{WORKERS - prefills} after {seconds:.0f} s", one.chosen[1])
    return [row for name, one in found.items() for row in _table(name, one)]


def _table(name: str, found: Found) -> list[Row]:
    worst, best = min(found.fixed.values()), max(found.fixed.values())
    at_best = max(found.fixed, key=lambda prefills: found.fixed[prefills])
    prefills, rate, seconds = found.chosen
    what = f"{name}: controller's {prefills}:{WORKERS - prefills}"
    return [
        Row(what, rate, "req/s", "worst fixed ratio", worst),
        Row(what, rate, "req/s", f"best, {at_best}:{WORKERS - at_best}", best),
        Row(f"{name}: controller at rest after", seconds, "s", "measuring window", 8.0),
    ]


@asynccontextmanager
async def _load(cluster: Cluster, draw: Draw) -> AsyncIterator[Client]:
    client, stop = Client(cluster.url(), seed=1), asyncio.Event()
    work = asyncio.ensure_future(client.closed_loop(draw, OUTSTANDING, stop))
    try:
        await asyncio.sleep(WARM_S)
        yield client
    finally:
        stop.set()
        await work


async def _rate(client: Client) -> float:
    """Completed requests a second, from now on. Raises RuntimeError where one failed."""
    start = time.monotonic()
    await asyncio.sleep(MEASURED_S)
    end = time.monotonic()
    if bad := [one.error for one in client.seen if one.error]:
        raise RuntimeError(f"{len(bad)} requests failed, the first with {bad[0]}")
    return sum(start < one.ended <= end for one in client.seen) / (end - start)


async def _at_rest(cluster: Cluster) -> tuple[int, float]:
    """Wait until the map has stayed as it is for a while; its prefills, and when the last change was."""
    start = changed = time.monotonic()
    members = await _members(cluster)
    while time.monotonic() - changed < CALM_S and time.monotonic() - start < LONGEST_S:
        await asyncio.sleep(0.5)
        if (now := await _members(cluster)) != members:
            members, changed = now, time.monotonic()
    return members[0], changed - start


async def _members(cluster: Cluster) -> tuple[int, int]:
    found = await cluster.map()
    return sum(len(one.prefill) for one in found.groups), sum(len(one.decode) for one in found.groups)


def _say(what: str, rate: float) -> None:
    print(f"  {what}: {rate:.2f} requests/s", flush=True)
