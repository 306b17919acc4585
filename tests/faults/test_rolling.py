"""F14: every role is asked to stop under load, one after another, each replaced first. No request notices."""

import asyncio
import itertools
from pathlib import Path

import pytest

from shared.config import FleetSettings
from shared.messages import Role
from tests.faults.cluster import Cluster, cluster
from tests.faults.history import History
from tests.faults.trial import judge

FLEET = FleetSettings()
SHORT = "[fleet]\ndrain_s = 1.0\n"
"""Of workers: streams that take longer must move."""
LONG = {"BATON_FLEET__DRAIN_S": "20"}
"""Of gateways, where a stream cannot move away from under its client."""


async def steady(history: History, fleet: Cluster, gateways: list[int], stop: asyncio.Event, first: int) -> None:
    """Ask again and again, each time at a gateway that takes requests."""
    for number in itertools.count(first, step=100):
        if stop.is_set():
            return
        tokens = 600 if number % 3 == 0 else 60  # some outlast a worker's drain
        url = fleet.url(gateways[number % len(gateways)])
        await history.ask(url, f"rolling {number}", tokens, seed=number)


@pytest.mark.long
async def test_all_roles_stop_one_after_another_under_load_and_no_request_fails(tmp_path: Path) -> None:
    async with cluster(tmp_path, gateways=0, toml=SHORT) as fleet:
        for name in ("gateway-1", "gateway-2"):
            await fleet.start(Role.GATEWAY, name, env=LONG)
            await fleet.until_ready(name)
        history, stop, gateways = History(), asyncio.Event(), [1, 2]
        clients = [asyncio.ensure_future(steady(history, fleet, gateways, stop, k)) for k in range(8)]
        try:
            for role in (Role.DECODE, Role.PREFILL, Role.MONITOR):
                for number in range(1, 2 if role is Role.MONITOR else 3):
                    await _replace(fleet, role, number)
            for number in (1, 2):
                gateways.remove(number)  # as its balancer does when /readyz says so
                await _stopped(fleet, f"gateway-{number}")
                await fleet.start(Role.GATEWAY, f"gateway-{number}", env=LONG)
                await fleet.ready(number)
                gateways.append(number)
        finally:
            stop.set()
            await asyncio.gather(*clients)
        assert len(history.entries) > 30
        await judge(fleet, history)


async def _replace(fleet: Cluster, role: Role, number: int) -> None:
    name = f"{role.value}-new-{number}"
    await fleet.start(role, name)  # one too many becomes a standby, which takes the place of whoever leaves
    await fleet.until_ready(name)
    await _stopped(fleet, f"{role.value}-{number}")


async def _stopped(fleet: Cluster, name: str) -> None:
    """Ask one to stop: in time, and with the status of what ended in order."""
    fleet.processes[name].terminate()
    assert await fleet.processes[name].ended(float(LONG["BATON_FLEET__DRAIN_S"]) + FLEET.stop_s) == 0, fleet.tail(name)


@pytest.mark.long
async def test_a_worker_stops_in_time_and_in_order_while_nats_is_down(tmp_path: Path) -> None:
    async with cluster(tmp_path, toml=SHORT) as fleet:
        history = History()
        asks = [asyncio.ensure_future(history.ask(fleet.url(), f"down {k}", 400, seed=k)) for k in range(8)]
        await history.flowing(8, 3)
        fleet.nats.kill()
        victims = ("decode-1", "prefill-1")
        for name in victims:
            fleet.processes[name].terminate()
        for name in victims:
            assert await fleet.processes[name].ended(1.0 + 2 * FLEET.stop_s) in (0, 1), fleet.tail(name)
        fleet.nats.start()
        await asyncio.gather(*asks)
        await judge(fleet, history)
