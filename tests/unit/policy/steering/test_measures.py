"""What is measured: restarts, late messages, role changes, silence, sums over gateways, and bounds of memory."""

import pytest

from shared.messages import BUCKETS, GroupTraffic, Role, State, Status, Traffic, Work
from shared.policy.steering.measures import Measures
from tests.unit.policy.steering.fleet import plan_of

SECOND = 1_000_000


def prefill(now: int, *, epoch: int = 1, per_s: int = 10, group: str = "main", number: int | None = None) -> Status:
    work = Work(per_s * now, 2 * SECOND * now, SECOND * now, SECOND * now // 2, 1000 * now, 500 * now, 3 * now)
    return Status(
        "p1",
        (1, epoch),
        Role.PREFILL,
        State.READY,
        "chat",
        group,
        8,
        6,
        number=now + 1 if number is None else number,
        work=work,
    )


def decode(now: int, name: str = "d1") -> Status:
    work = Work(10 * now, 20 * SECOND * now, SECOND * now, 0, 1000 * now)
    return Status(name, (1, 1), Role.DECODE, State.READY, "chat", "main", 64, 44, number=now + 1, work=work)


def measured(until: int = 31) -> Measures:
    measures = Measures("chat", 10.0)
    measures.know(plan_of(("main", 1, 1)))
    for now in range(until):
        measures.see(prefill(now), float(now))
        measures.see(decode(now), float(now))
    return measures


def test_the_figures_are_those_of_the_paper() -> None:
    figures = measured().group("main", 30.0)
    assert (figures.n_p, figures.n_d, figures.b_p, figures.b_d) == (1, 1, 8.0, 64.0)
    assert figures.t_p == pytest.approx(0.2)
    assert figures.xi == pytest.approx(0.05)
    assert figures.tokens == pytest.approx(100.0)
    assert figures.tpot == pytest.approx(0.02)
    assert figures.t_d == pytest.approx(0.05 + 0.02 * 100)
    assert (figures.use_p, figures.use_d) == (pytest.approx(1.0), pytest.approx(20 / 64))
    assert (figures.c_p, figures.c_d) == (pytest.approx(10.0), pytest.approx(64 / 0.02 / 100))
    assert figures.rate == pytest.approx(10.0)
    assert figures.cached == pytest.approx(1 / 3)
    assert figures.refused == pytest.approx(3.0)
    assert figures.steady


def test_a_restart_and_a_late_message_never_count_backwards() -> None:
    measures = measured()
    before = measures.group("main", 30.0)
    measures.see(prefill(3), 30.0)  # overtaken by 27 others
    assert measures.group("main", 30.0) == before
    measures.see(prefill(0, epoch=2), 31.0)
    measures.see(prefill(1, epoch=2), 32.0)
    measures.see(prefill(0, epoch=2, number=9), 33.0)  # counters shrank within an epoch
    measures.see(prefill(1, epoch=2, number=10), 34.0)
    figures = measures.group("main", 34.0)
    assert (figures.n_p, figures.c_p) == (1, pytest.approx(10.0, rel=0.2))
    measures.see(prefill(99), 35.0)  # of the life before
    assert measures.group("main", 35.0).rate < 20.0


def test_whoever_is_silent_or_goes_elsewhere_is_not_counted_as_here() -> None:
    measures = measured()
    assert measures.group("main", 45.0).n_p == 0
    measures = measured()
    measures.see(prefill(31, group="other"), 31.0)
    assert (measures.group("main", 31.0).n_p, measures.group("other", 31.0).n_p) == (0, 1)
    measures.see(Status("p1", (1, 1), Role.PREFILL, State.STOPPED, "chat", "other", number=99), 32.0)
    assert measures.group("other", 32.0).n_p == 0


def test_what_one_did_that_has_left_still_counts_so_no_capability_jumps() -> None:
    measures = measured(1)
    for now in range(1, 31):
        measures.see(prefill(now), float(now))
        for name in ("d1", "d2"):
            measures.see(decode(now, name), float(now))
    before = measures.group("main", 30.0)
    measures.see(Status("d2", (1, 1), Role.DECODE, State.STOPPED, "chat", "main", number=99), 30.5)
    after = measures.group("main", 30.5)
    assert (before.n_d, after.n_d) == (2, 1)
    assert after.c_d == pytest.approx(before.c_d, rel=0.05)


def test_other_scenarios_are_ignored() -> None:
    measures = Measures("code", 10.0)
    for now in range(10):
        measures.see(prefill(now), float(now))
    assert measures.group("main", 9.0).n_p == 0


def traffic(gateway: str, number: int, *, epoch: int = 1, times: int = 1) -> Traffic:
    ttft, tpot = [0] * BUCKETS, [0] * BUCKETS
    ttft[0], ttft[5], tpot[4] = 6 * times, 2 * times, 8 * times  # a quarter of the first tokens is late
    group = GroupTraffic("main", 8 * times, times, ttft, tpot, 0, 16 * SECOND * times, 4 * SECOND * times, 80 * times)
    return Traffic(
        gateway, (1, epoch), "chat", number, arrived=10 * times, refused=times, waiting=3, open=5, groups=[group]
    )


def test_traffic_is_added_up_over_gateways_and_their_restarts() -> None:
    measures = Measures("chat", 10.0)
    measures.know(plan_of(("main", 1, 1)))
    for gateway in ("a", "b"):
        for second in range(11):
            measures.see(traffic(gateway, second + 1, times=second + 1000), float(second))
    measures.see(traffic("a", 5, times=1), 10.0)  # late
    measures.see(traffic("b", 1, epoch=2, times=1), 10.0)  # restarted: what it did until now is not known to be new
    figures, totals = measures.group("main", 10.0), measures.totals([], 10.0)
    assert (figures.ttft_met, figures.tpot_met) == (pytest.approx(0.75), pytest.approx(1.0))
    assert (figures.e2e, figures.share) == (pytest.approx(2.0), pytest.approx(0.25))
    assert figures.failed == pytest.approx(1 / 9)
    assert (totals.arriving, totals.refused) == (pytest.approx(20.0, rel=0.06), pytest.approx(2.0, rel=0.06))
    assert (totals.waiting, totals.open) == (6, 10)
    assert measures.totals([], 16.0).waiting == 0  # silent for longer than five seconds


def test_sums_of_groups_that_are_no_more_are_forgotten() -> None:
    measures = Measures("chat", 10.0)
    for second in range(3):
        measures.see(traffic("a", second + 1, times=second), float(second))
    assert measures.traffic.of("main").finished == 16
    measures.know(plan_of(("other", 1, 1)))
    assert measures.traffic.of("main").finished == 0


def test_phi_is_the_throughput_per_instance() -> None:
    measures = measured()
    for second in range(21, 31):
        measures.see(traffic("a", second, times=second), float(second))
    figures = measures.group("main", 30.0)
    totals = measures.totals([figures], 30.0)
    assert totals.phi == pytest.approx(min(10.0, figures.capable_p, figures.capable_d) / 2)


def test_a_decode_whose_kv_memory_ends_before_its_slots_is_full_then() -> None:
    measures = Measures("chat", 10.0)
    measures.know(plan_of(("main", 1, 1)))
    for now in range(200):
        used = 0 if now == 0 else 8 + now % 5
        work = Work(10 * now, 10 * SECOND * now, SECOND * now, 0, 500 * now)
        status = Status(
            "d1", (1, 1), Role.DECODE, State.READY, "chat", "main", 64, 64 - used, number=now + 1, work=work
        )
        free = 1600 - 100 * used
        measures.see(
            Status(**{**{f: getattr(status, f) for f in status.__struct_fields__}, "kv_free_bytes": free}), now
        )
    assert measures.group("main", 199.0).b_d == pytest.approx(16.0, rel=0.05)
