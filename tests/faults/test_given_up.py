"""F33 and F35: whoever takes a request over dies as well. It is given up in time, with words, and the fleet lives."""

import asyncio
from pathlib import Path

import pytest

from shared.messages import Role
from tests.faults.client import ask
from tests.faults.cluster import cluster
from tests.faults.history import History, check
from tests.faults.oracle import reference
from tests.faults.trial import joined, judge

POISONED = "tests.faults.poisoned_decode"


async def test_a_request_that_kills_each_worker_it_meets_is_refused_and_the_fleet_lives(tmp_path: Path) -> None:
    async with cluster(tmp_path, decodes=0) as fleet:
        for number in range(1, 5):
            await joined(fleet, Role.DECODE, f"decode-{number}", module=POISONED)
        await fleet.ready()
        history = History()
        innocent = [
            asyncio.ensure_future(history.ask(fleet.url(), f"innocent {k}", 300, seed=k, timeout_s=90))
            for k in range(8)
        ]
        await history.flowing(8, 3)
        answer = await ask(fleet.url(), "this is poison", 20, seed=1)
        assert answer.code == "engine_failed", answer
        assert "workers died with this request" in answer.error["message"]
        await asyncio.gather(*innocent)
        dead = [name for name in ("decode-1", "decode-2", "decode-3", "decode-4") if not fleet.processes[name].alive]
        assert len(dead) in (2, 3), "two with it alone; a third tells it from those that were with it at both"
        await judge(fleet, history)


@pytest.mark.long
async def test_when_each_replacement_dies_the_stream_ends_with_an_error_that_says_how_far_it_came(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path, decodes=1) as fleet:
        answers = asyncio.ensure_future(ask(fleet.url(), "long", 3000, seed=1))
        for number in range(1, 6):
            name = f"decode-{number}"
            async with asyncio.timeout(60):
                while not answers.done() and not await fleet.holders():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            if answers.done():
                break
            fleet.processes[name].kill()
            await joined(fleet, Role.DECODE, f"decode-{number + 1}")
        answer = await answers
        shown = len(answer.text)
        assert answer.error is not None
        assert not answer.finishes
        assert reference("long", 3000, seed=1).startswith(answer.text)
        assert str(shown) in answer.error["message"], answer.error
        await judge(fleet, History())


@pytest.mark.long
async def test_an_error_of_ours_in_a_worker_costs_one_attempt_and_not_the_request(tmp_path: Path) -> None:
    """F22: out of memory, or a bug, in the middle of one attempt."""
    points = ("prefill.accepted=memory@2", "prefill.computed=memory@2", "prefill.kv_ready=raise@2")
    async with cluster(tmp_path, prefills=1) as fleet:
        history = History()
        for number, point in enumerate(points, start=2):
            await joined(fleet, Role.PREFILL, f"prefill-{number}", failpoints=point)
            asks = (history.ask(fleet.url(), f"{number} {k}", 30, seed=k) for k in range(12))
            await asyncio.gather(*asks)
        assert check(history) == []
        assert history.failed == []
        await judge(fleet, history)
