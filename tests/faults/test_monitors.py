"""Two monitors: whoever leads may die or freeze; the other leads, nobody is replaced twice, an old word is refused."""

import asyncio
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.messages import Role, ScenarioMap, decode
from tests.faults.cluster import Cluster, cluster
from tests.faults.load import Load, fresh

STREAMS, TOKENS = 8, 500
MONITORS = ("monitor-1", "monitor-2")


async def leading(fleet: Cluster) -> list[str]:
    """Name the monitors that take themselves for the leader."""
    asked = [name for name in MONITORS if fleet.processes[name].alive and not fleet.processes[name].frozen]
    return [name for name in asked if (await fleet.metrics(name))["baton_monitor_leading"]]


async def until_leading(fleet: Cluster, seconds: float = 20) -> str:
    give_up = time.monotonic() + seconds
    while len(found := await leading(fleet)) != 1:
        assert time.monotonic() < give_up, f"leading: {found}"
        await asyncio.sleep(0.05)
    return found[0]


async def known_map(fleet: Cluster) -> ScenarioMap:
    client = Redis.from_url(fleet.redis.settings().url)
    try:
        return decode(await client.get(keys.scenario_map("chat")), ScenarioMap)
    finally:
        await client.aclose()


async def members(fleet: Cluster, role: Role) -> set[str]:
    groups = (await known_map(fleet)).groups
    found = [group.prefill if role is Role.PREFILL else group.decode for group in groups]
    return {member.instance for group in found for member in group}


async def assigned(fleet: Cluster) -> float:
    """Roles given to standbys, by those monitors that can say so."""
    asked = [name for name in MONITORS if fleet.processes[name].alive and not fleet.processes[name].frozen]
    return sum([(await fleet.metrics(name)).get("baton_fleet_assigned_total", 0.0) for name in asked])


async def until_decodes(fleet: Cluster, wanted: int, without: str, seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while without in (found := await members(fleet, Role.DECODE)) or len(found) != wanted:
        assert time.monotonic() < give_up, f"decodes on the map: {found}"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", [pytest.param(how, marks=pytest.mark.long) for how in ("killed", "frozen")])
async def test_the_leader_falls_together_with_a_decode_and_one_standby_takes_its_place(
    tmp_path: Path, how: str
) -> None:
    async with cluster(tmp_path, monitors=2, standbys=2) as fleet:
        leader = await until_leading(fleet)
        before = (await known_map(fleet)).epoch
        load = Load(fleet.url(), STREAMS, TOKENS, seed=1)
        await load.under_way()
        victim = (await fleet.holders())[0]
        if how == "killed":
            fleet.processes[leader].kill()
        else:
            fleet.processes[leader].freeze()
        fleet.processes[victim].kill()
        await load.whole()
        heir = await until_leading(fleet)
        assert heir != leader
        await until_decodes(fleet, 2, victim)
        assert (await known_map(fleet)).epoch > before
        if how == "frozen":
            fleet.processes[leader].thaw()
            await asyncio.sleep(2)  # a zombie that acts does so at once
            assert await until_leading(fleet) == heir
        assert await assigned(fleet) == 1
        assert len(await members(fleet, Role.DECODE)) == 2
        await fresh(fleet.url(), seed=2)
        await fleet.quiet()


@pytest.mark.long
async def test_without_any_monitor_traffic_goes_on_and_a_later_one_takes_over_the_map(tmp_path: Path) -> None:
    async with cluster(tmp_path, monitors=1, standbys=1) as fleet:
        before = await known_map(fleet)
        fleet.processes["monitor-1"].kill()
        load = Load(fleet.url(), STREAMS, TOKENS, seed=3)
        await load.under_way()
        victim = (await fleet.holders())[0]
        fleet.processes[victim].kill()
        await load.whole()
        await fresh(fleet.url(), seed=4)
        await fleet.start(Role.MONITOR, "monitor-1")
        await until_decodes(fleet, 2, victim)
        assert (await known_map(fleet)).epoch > before.epoch
        await fresh(fleet.url(), seed=5)
        await fleet.quiet()


async def test_every_service_whose_password_was_changed_ends_with_a_failing_status(tmp_path: Path) -> None:
    async with cluster(tmp_path, prefills=1, decodes=1) as fleet:
        await fresh(fleet.url(), seed=6)
        fleet.nats.change_password()
        fleet.nats.kill()
        fleet.nats.start()
        ended = [await process.ended(30) for process in fleet.processes.values()]
        assert all(status == 1 for status in ended), ended
