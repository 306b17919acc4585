"""Slow lines, and messages that are lost, doubled, late or said again (F12, F17, F20): the same text, every time."""

import pytest

from tests.faults.load import Load, fresh
from tests.faults.nats_wire import Rule
from tests.faults.wired import Wired

pytestmark = pytest.mark.asyncio(loop_scope="module")
STREAMS, TOKENS = 6, 150


async def judge(hurt: Wired, load: Load) -> None:
    await load.whole()
    await hurt.heal()
    await fresh(hurt.url, seed=2)
    await hurt.cluster.quiet(30)


async def losses(hurt: Wired) -> float:
    return (await hurt.cluster.metrics("monitor-1")).get("baton_fleet_lost_total", 0.0)


def of_requests(subject: str) -> bool:
    """Name what a request needs: offers, answers, hand-offs, frames, cancels. Not heartbeats."""
    return ".status." not in subject and not subject.endswith(("._pulse", ".map"))


@pytest.mark.parametrize(
    ("delay_s", "jitter_s"), [(0.05, 0.02), pytest.param(0.15, 0.05, marks=pytest.mark.long)], ids=["50 ms", "300 ms"]
)
async def test_slow_lines_to_nats_cost_time_and_nobody_is_taken_for_lost(
    hurt: Wired, delay_s: float, jitter_s: float
) -> None:
    before = await losses(hurt)
    for wire in hurt.nats.values():
        for way in (wire.up, wire.down):
            way.delay_s, way.jitter_s = delay_s, jitter_s
    await judge(hurt, Load(hurt.url, STREAMS, TOKENS, seed=1))
    assert await losses(hurt) == before


@pytest.mark.parametrize("share", [0.01, *(pytest.param(share, marks=pytest.mark.long) for share in (0.05, 0.2))])
async def test_a_part_of_all_messages_of_requests_is_lost(hurt: Wired, share: float) -> None:
    for wire in hurt.nats.values():
        wire.rules.append(Rule(of_requests, drop=share))  # at each end: a message crosses two lines
    await judge(hurt, Load(hurt.url, STREAMS, TOKENS, seed=3, timeout_s=120))


async def test_a_part_of_all_statuses_is_lost_and_nobody_is_taken_for_lost(hurt: Wired) -> None:
    before = await losses(hurt)
    for wire in hurt.nats.values():
        wire.rules.append(Rule(lambda subject: ".status." in subject, drop=0.05))
    await judge(hurt, Load(hurt.url, STREAMS, TOKENS, seed=5))
    assert await losses(hurt) == before


async def test_a_tenth_of_all_answers_to_requests_is_lost_after_what_was_asked_was_done(hurt: Wired) -> None:
    for wire in hurt.nats.values():
        wire.rules.append(Rule(lambda subject: subject.startswith("_INBOX"), drop=0.1, up=False))
    await judge(hurt, Load(hurt.url, 2 * STREAMS, 30, seed=6, timeout_s=100))


async def test_every_message_comes_twice_or_more(hurt: Wired) -> None:
    for wire in hurt.nats.values():
        wire.rules.append(Rule(twice=1))
    await judge(hurt, Load(hurt.url, STREAMS, TOKENS, seed=7))
    assert sum(wire.doubled for wire in hurt.nats.values()) > TOKENS


async def test_messages_overtake_each_other(hurt: Wired) -> None:
    for wire in hurt.nats.values():
        wire.rules.append(Rule(late=0.1, late_s=0.03))
    await judge(hurt, Load(hurt.url, STREAMS, TOKENS, seed=9))


async def test_whatever_was_said_is_said_again_later(hurt: Wired) -> None:
    for wire in hurt.nats.values():
        wire.record = lambda subject: subject.startswith("baton.")
    await judge(hurt, Load(hurt.url, STREAMS, 40, seed=11))
    load = Load(hurt.url, STREAMS, TOKENS, seed=12)
    await load.under_way()
    for wire in hurt.nats.values():
        wire.record = lambda _: False
        said, wire.recorded = wire.recorded, []
        assert said
        for recorded in said[-60:]:
            wire.replay(recorded)
    await judge(hurt, load)


async def test_bits_of_kv_are_flipped_on_the_way(hurt: Wired) -> None:
    before = await refused(hurt)
    for wire in hurt.kv.values():
        wire.up.flip_rate = 1e-5  # a buffer in six
    load = Load(hurt.url, 30, 12, seed=14)
    await load.whole()
    flipped = sum(wire.up.flipped for wire in hurt.kv.values())
    await judge(hurt, load)
    assert flipped > 0
    assert await refused(hurt) > before


async def refused(hurt: Wired) -> float:
    """Pushes that failed, by the prefills' count."""
    seen = [await hurt.cluster.metrics(name) for name in ("prefill-1", "prefill-2")]
    return sum(one.get("baton_worker_kv_push_failures_total", 0.0) for one in seen)
