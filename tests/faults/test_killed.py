"""F1, F2, F3: workers killed at named points, and whole roles at once. Every stream goes on to its end, identical."""

import asyncio
from pathlib import Path

import pytest

from shared.messages import Role
from tests.faults.cluster import Cluster, cluster
from tests.faults.history import History
from tests.faults.trial import joined, trial

KILLED = -9
PREFILL = ("prefill.computed=kill@3", "kv.pushing=kill@3", "prefill.pushed=kill@2")
MORE_PREFILL = (
    "prefill.accepted=kill@2",
    "prefill.first_token=kill@2",
    "prefill.kv_ready=kill@3",
    "prefill.granted=kill@2",
)
"""F1: before anything, before the first token, after it; before, amid and after the push."""
DECODE = ("decode.received=kill@3", "decode.step=kill@40", "decode.ending=kill@2")
MORE_DECODE = ("decode.granted=kill@2", "decode.inserted=kill@2", "decode.step=kill@1")
"""F2: before token 1, mid-stream, and after the last token before its ending."""
long = pytest.mark.long


async def killed_at(fleet: Cluster, role: Role, name: str, point: str, seed: int) -> History:
    """Put one more worker there, which dies at that point, and load all of them."""
    victim = await joined(fleet, role, name, failpoints=point)

    async def until_it_dies(_: History) -> None:
        assert await victim.ended() == KILLED, point

    return await trial(fleet, until_it_dies, seed=seed, streams=18, begun=0)


@pytest.mark.parametrize("points", [PREFILL, pytest.param(MORE_PREFILL, marks=long)])
async def test_a_prefill_killed_at_any_point_costs_no_stream_anything(tmp_path: Path, points: tuple[str, ...]) -> None:
    async with cluster(tmp_path) as fleet:
        for number, point in enumerate(points, start=3):
            await killed_at(fleet, Role.PREFILL, f"prefill-{number}", point, number)


@pytest.mark.parametrize("points", [DECODE, pytest.param(MORE_DECODE, marks=long)])
async def test_a_decode_killed_at_any_point_costs_no_stream_anything(tmp_path: Path, points: tuple[str, ...]) -> None:
    async with cluster(tmp_path) as fleet:
        for number, point in enumerate(points, start=3):
            await killed_at(fleet, Role.DECODE, f"decode-{number}", point, number)


async def test_both_last_workers_killed_at_once_are_replaced_by_standbys_and_the_streams_go_on(tmp_path: Path) -> None:
    async with cluster(tmp_path, prefills=1, decodes=1, standbys=2) as fleet:

        async def kill_both(_: History) -> None:
            for name in ("prefill-1", "decode-1"):
                fleet.processes[name].kill()
                await fleet.processes[name].ended()

        await trial(fleet, kill_both, seed=1, tokens=150)


@long
async def test_a_last_worker_killed_without_a_spare_is_waited_for(tmp_path: Path) -> None:
    async with cluster(tmp_path, prefills=1, decodes=1) as fleet:
        for role in (Role.DECODE, Role.PREFILL):

            async def kill_and_replace(history: History, role: Role = role) -> None:
                fleet.processes[f"{role.value}-1"].kill()
                late = asyncio.ensure_future(history.ask(fleet.url(), "comes while nobody is there", 40, seed=5))
                await joined(fleet, role, f"{role.value}-2")
                await late

            await trial(fleet, kill_and_replace, seed=2, tokens=150)
