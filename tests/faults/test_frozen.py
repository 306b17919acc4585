"""F4 to F7: processes that stand still keep their connections, say nothing, and may wake up and go on."""

import asyncio
import time
from pathlib import Path

import pytest

from shared.config import FleetSettings
from shared.messages import Role
from tests.faults.cluster import Cluster, cluster
from tests.faults.history import History
from tests.faults.trial import joined, trial

FLEET = FleetSettings()
STALE = ("baton_gateway_frames_stale_tokens_total", "baton_gateway_frames_stale_frames_total")


async def all_ended(history: History) -> None:
    await history.ended()


@pytest.mark.long
async def test_a_decode_that_stands_still_for_less_than_its_lease_harms_no_stream(tmp_path: Path) -> None:
    async with cluster(tmp_path) as fleet:

        async def freeze_the_busiest(_: History) -> None:
            victim = fleet.processes[(await fleet.holders())[0]]
            victim.freeze()
            await asyncio.sleep(0.8 * FLEET.lease_ttl_s)
            victim.thaw()

        await trial(fleet, freeze_the_busiest, seed=1, tokens=200)


async def test_a_decode_frozen_beyond_its_lease_is_refused_when_it_wakes_and_lets_go_of_everything(
    tmp_path: Path,
) -> None:
    """It stops itself with a step drawn and its frame not sent: the first thing that it does when it wakes."""
    async with cluster(tmp_path) as fleet:
        zombie = await joined(fleet, Role.DECODE, "decode-3", failpoints="decode.step=stop@20")

        async def wake_it_when_all_have_gone_on(history: History) -> None:
            await zombie.stopped()
            since = time.monotonic()
            await all_ended(history)
            await asyncio.sleep(since + 1.05 * FLEET.lease_ttl_s - time.monotonic())
            before = await stale(fleet)
            zombie.thaw()
            async with asyncio.timeout(20):
                while await stale(fleet) == before and not await cut_off(fleet):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        history = await trial(fleet, wake_it_when_all_have_gone_on, seed=3, streams=18, tokens=100, begun=0)
        assert max(entry.begun.longest_gap_s for entry in history.entries) > FLEET.heartbeat_s, "no stream had to move"


async def stale(fleet: Cluster) -> float:
    """Count what the gateway refused for its age."""
    metrics = await fleet.metrics("gateway-1")
    return sum(metrics[name] for name in STALE)


async def cut_off(fleet: Cluster) -> bool:
    """Whether NATS gave the zombie up before it woke, on a slow machine: then what it had to say went nowhere."""
    return (await fleet.metrics("decode-3")).get("baton_bus_reconnects_total", 0) > 0


@pytest.mark.long
async def test_a_stuck_engine_step_is_noticed_though_the_process_is_alive(tmp_path: Path) -> None:
    """The loop is blocked as by an endless step: no heartbeat, no tokens, connections open."""
    stuck_s = 8.0
    async with cluster(tmp_path, decodes=1) as fleet:
        stuck = await joined(fleet, Role.DECODE, "decode-2", failpoints=f"decode.step=sleep:{stuck_s}@30")
        history = await trial(fleet, all_ended, seed=4, tokens=100, begun=0, quiet_s=40)
        assert stuck.alive
        gap_s = max(entry.begun.longest_gap_s for entry in history.entries)
        assert FLEET.heartbeat_s < gap_s < stuck_s, "some stream had to move, and none waited for it"


async def test_a_frozen_prefill_holds_no_request_beyond_the_offers_deadline(tmp_path: Path) -> None:
    bound_s = FLEET.offer_timeout_s + FLEET.heartbeat_s * (FLEET.heartbeat_misses + 1)
    async with cluster(tmp_path) as fleet:
        for seed, name in enumerate(("prefill-1", "prefill-2")):  # one of them is the gateway's first choice
            fleet.processes[name].freeze()
            history = await trial(fleet, all_ended, seed=seed, begun=0)
            assert max(entry.begun.first_s for entry in history.entries) < 3 * bound_s
            fleet.processes[name].thaw()
        assert (await fleet.metrics("gateway-1"))["baton_gateway_withdrawn_total"] > 0, "none was offered to them"
        await trial(fleet, all_ended, seed=6)


@pytest.mark.long
async def test_a_prefill_frozen_with_staging_in_hand_is_left_and_lets_go_when_it_wakes(tmp_path: Path) -> None:
    async with cluster(tmp_path, prefills=1) as fleet:
        zombie = await joined(fleet, Role.PREFILL, "prefill-2", failpoints="prefill.granted=stop@2")

        async def wake_it_when_all_have_gone_on(history: History) -> None:
            await zombie.stopped()
            await all_ended(history)
            zombie.thaw()

        await trial(fleet, wake_it_when_all_have_gone_on, seed=7, begun=0)


async def test_streams_of_a_gateway_that_stands_still_go_on_when_it_does(tmp_path: Path) -> None:
    async with cluster(tmp_path) as fleet:

        async def freeze(_: History) -> None:
            fleet.processes["gateway-1"].freeze()
            await asyncio.sleep(3.0)
            fleet.processes["gateway-1"].thaw()

        await trial(fleet, freeze, seed=8, tokens=300)
