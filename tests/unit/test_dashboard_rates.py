"""Rates and quantiles that the dashboard makes of counters."""

import pytest

from services.monitor.dashboard.figures import Figures
from services.monitor.dashboard.rates import RATE_S, SILENT_S, TIMES_S, Flow, Pace, Rates, Served, Span, Track, times
from shared.messages import Epoch, GroupTraffic, Link, Links, Role, State, Status, Traffic, Work

EPOCH = (1, 1)


def _traffic(
    number: int, *, gateway: str = "g1", epoch: Epoch = EPOCH, arrived: int = 0, waiting: int = 0, **more: int
) -> Traffic:
    group = GroupTraffic("main", ttft=[more.pop("soon", 0), 0, 0, 0, 0, more.pop("late", 0)], **more)
    return Traffic(gateway, epoch, "chat", number, arrived, waiting=waiting, groups=[group])


def _status(work: Work, epoch: Epoch = EPOCH, free: int = 0) -> Status:
    return Status("d1", epoch, Role.DECODE, State.READY, "chat", "main", work=work, kv_free_bytes=free)


def test_a_track_gives_the_oldest_of_the_span_and_keeps_no_more_than_it_needs() -> None:
    track: Track[str, int] = Track(10.0)
    assert track.span("a", 10.0) is None
    for at in range(100):
        track.see([("a", EPOCH, at)], float(at))
    assert track.span("a", 10.0) == Span(89, 99, 10.0)
    assert track.span("a", 1000.0) == Span(89, 99, 10.0)
    assert track.span("a", 0.5) == Span(98, 99, 1.0)


def test_a_track_starts_anew_with_an_epoch_and_forgets_who_is_gone() -> None:
    track: Track[str, int] = Track(10.0)
    track.see([("a", EPOCH, 100), ("b", EPOCH, 1)], 0.0)
    track.see([("a", (1, 2), 3)], 1.0)
    assert track.span("a", 10.0) is None
    track.see([("a", (1, 2), 4), ("b", EPOCH, 9)], 2.0)
    assert track.span("a", 10.0) == Span(3, 4, 1.0)
    assert track.span("b", 10.0) is None


def test_arrivals_of_all_gateways_are_added_and_those_of_a_silent_one_wait_no_more() -> None:
    rates = Rates()
    for at in range(8):
        live = _traffic(at + 1, arrived=5 * at, waiting=2, finished=3 * at, soon=3 * at)
        dead = _traffic(min(at + 1, 2), gateway="g2", arrived=7, waiting=40)
        rates.see(Figures(traffic=[live, dead]), float(at))
    served = rates.served("chat")
    assert SILENT_S < 7 < RATE_S
    assert (served.arriving_per_s, served.finished_per_s, served.finished) == (5.0, 3.0, 21)
    assert served.waiting == 2
    assert (served.ttft.count, served.ttft.within) == (21, 1.0)


def test_a_scenario_of_which_nobody_tells_is_not_known() -> None:
    assert Rates().served("chat") == Served()


def test_a_gateway_that_starts_again_never_counts_backwards() -> None:
    rates = Rates()
    rates.see(Figures(traffic=[_traffic(9, arrived=900, finished=900)]), 0.0)
    rates.see(Figures(traffic=[_traffic(1, epoch=(1, 2), arrived=1)]), 1.0)
    rates.see(Figures(traffic=[_traffic(2, epoch=(1, 2), arrived=3)]), 2.0)
    assert rates.served("chat").arriving_per_s == 2.0


def test_shares_are_of_the_last_minute() -> None:
    rates = Rates()
    for at in range(int(2 * TIMES_S)):
        bad = 10 if at > 0 else 0
        rates.see(Figures(traffic=[_traffic(at + 1, soon=at, late=bad)]), float(at))
    assert rates.served("chat").ttft.within == 1.0


@pytest.mark.parametrize(
    ("buckets", "within", "p50", "p99"),
    [
        ([0, 0, 0, 0, 100, 0, 0, 0, 0], 1.0, 0.875, 0.9975),
        ([50, 50, 0, 0, 0, 0, 0, 0, 0], 1.0, 0.1, 0.247),
        ([0, 0, 0, 0, 50, 50, 0, 0, 0], 0.5, 1.0, 1.49),
        ([0, 0, 0, 0, 0, 0, 0, 0, 3], 0.0, 4.0, 4.0),
        ([0, 0, 1], 1.0, 0.375, 0.4975),
    ],
)
def test_quantiles_are_interpolated_in_their_bucket(buckets: list[int], within: float, p50: float, p99: float) -> None:
    read = times(buckets)
    assert (read.within, read.p50, read.p99) == (within, pytest.approx(p50), pytest.approx(p99))


def test_work_gives_the_use_of_a_worker_and_the_kv_that_waits() -> None:
    rates = Rates()
    rates.see(Figures(statuses={"d1": _status(Work(), free=800)}), 0.0)
    rates.see(Figures(statuses={"d1": _status(Work(8, 0, 3_000_000, 10_000_000, 200), free=300)}), 4.0)
    assert rates.pace("d1") == Pace(2.0, 50.0, 0.75, 2.5)
    assert rates.room("d1") == 800
    rates.see(Figures(statuses={"d1": _status(Work(), (1, 2), free=100)}), 5.0)
    assert (rates.pace("d1"), rates.room("d1"), rates.room("nobody")) == (Pace(), 100, 0)


def test_a_link_to_a_decode_that_started_again_has_no_rate_until_both_ends_are_the_same() -> None:
    rates = Rates()
    for at, epoch in enumerate([EPOCH, EPOCH, (1, 2)]):
        link = Link("d1", epoch, pushes=at, bytes=1000 * at, push_us=5000 * at)
        rates.see(Figures(links={"p1": Links("p1", EPOCH, [link])}), float(at))
        if at == 1:
            assert rates.flow("p1", "d1") == Flow(1000.0, 5.0)
    assert rates.flow("p1", "d1") == Flow()
    assert rates.flow("p1", "d2") == Flow()
