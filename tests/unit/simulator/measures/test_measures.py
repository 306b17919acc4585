"""Figures of a run are those of its outcomes, however they are added up."""

from math import isnan
from random import Random

import pytest

from shared.errors import Code
from simulator.measures.distribution import Distribution
from simulator.measures.outcome import Outcome
from simulator.measures.series import Series
from simulator.measures.tally import Objectives, Tally
from simulator.workload.arrival import Arrival


def outcome(
    at: float, ttft: float | None, end: float, tokens: int = 11, *, code: Code | None = None, scenario: str = "chat"
) -> Outcome:
    arrival = Arrival(at, 100, tokens, scenario=scenario)
    first = None if ttft is None else at + ttft
    return Outcome(arrival, at, first, end, 0 if first is None else tokens, code, offers=2, attempts=1, cached=25)


def test_percentiles_are_the_nearest_rank() -> None:
    values = Distribution([5.0, 1.0, 4.0, 2.0, 3.0])
    assert [values.percentile(p) for p in (1, 20, 21, 50, 99, 100)] == [1.0, 1.0, 2.0, 3.0, 5.0, 5.0]
    assert values.mean == 3.0
    assert values.share_within(3.0) == 0.6
    assert isnan(Distribution().percentile(50))
    with pytest.raises(ValueError, match="percentile"):
        values.percentile(0)


def test_a_distribution_that_grows_is_put_in_order_again() -> None:
    values = Distribution([3.0])
    assert values.percentile(50) == 3.0
    values.add(1.0)
    assert values.percentile(50) == 1.0
    assert list(Distribution.of([values, Distribution([2.0])]).ordered) == [1.0, 2.0, 3.0]


def test_the_area_between_two_distributions_is_a_share_of_the_mean() -> None:
    one = Distribution((4.0, 1.0, 3.0, 2.0))
    assert one.area(one) == 0.0
    assert Distribution(1.1 * value for value in one.values).area(one) == pytest.approx(0.1)
    assert Distribution((1.0, 2.0, 3.0, 8.0)).area(one) == pytest.approx(4.0 / 4 / 2.5)  # one of four is 4 farther
    assert one.area(Distribution((0.0, 5.0))) == pytest.approx((1.0 + 2.0 + 2.0 + 1.0) / 4 / 2.5)  # of another size
    assert Distribution((2.0, 4.0)).area(Distribution((3.0, 3.0, 3.0))) == pytest.approx(1.0 / 3.0)
    assert isnan(one.area(Distribution()))


def test_two_distributions_are_as_far_apart_as_their_farthest_percentile() -> None:
    rng = Random(1)
    one = Distribution(rng.uniform(1, 2) for _ in range(1000))
    assert one.distance(one) == 0.0
    assert Distribution(1.1 * value for value in one.values).distance(one) == pytest.approx(0.1)
    assert Distribution().distance(one) == float("inf")


def test_an_outcome_meets_both_objectives_or_none_counts() -> None:
    good = outcome(1.0, 0.5, 2.5)
    assert (good.ttft, good.tpot, good.e2e) == (0.5, pytest.approx(0.1), 1.5)
    assert good.meets(0.5, 0.1001)
    assert not good.meets(0.4, 1.0)
    assert not good.meets(1.0, 0.09)
    assert not outcome(1.0, 0.5, 2.5, code=Code.DEADLINE).meets(9.0, 9.0)
    assert not outcome(1.0, None, 2.5, code=Code.OVERLOADED).meets(9.0, 9.0)
    assert outcome(1.0, 0.5, 1.5, tokens=1).meets(0.5, 0.001), "one token has no pace"


def test_a_tally_counts_what_arrived_in_its_window() -> None:
    tally = Tally(Objectives(1.0, 0.2), begin=10.0, end=20.0)
    for one in (
        outcome(5.0, 0.5, 12.0),  # before: its ending counts for rates
        outcome(11.0, 0.5, 12.0),
        outcome(12.0, 3.0, 16.0),  # late
        outcome(13.0, None, 14.0, code=Code.OVERLOADED),
        outcome(19.0, 0.5, 25.0),  # ends outside
        outcome(19.0, 0.5, 19.9, scenario="code"),
    ):
        tally(one)
    figures = tally.all
    assert figures.requests == 5
    assert figures.codes == {None: 4, Code.OVERLOADED: 1}
    assert figures.success == 0.8
    assert figures.attainment == pytest.approx(2 / 5), "the late one, the refused one and the slow one miss"
    assert figures.finished == 4
    assert figures.throughput == pytest.approx(0.4)
    assert figures.hits == 0.25
    assert figures.offers_each == 2.0
    assert tally.scenarios["code"].requests == 1
    assert sorted(figures.ttft.values) == [0.5, 0.5, 0.5, 3.0]


def test_tokens_across_the_edge_of_a_window_are_parted() -> None:
    tally = Tally(begin=10.0, end=20.0)
    tally(outcome(9.0, 0.0, 29.0, tokens=21))  # one a second from 9 to 29
    assert tally.all.tokens == pytest.approx(10.0)


def test_a_series_has_a_value_for_each_window() -> None:
    series = Series(10.0, Objectives(1.0, 1.0))
    for one in (outcome(1.0, 0.5, 2.0), outcome(2.0, 2.0, 15.0), outcome(25.0, None, 26.0, code=Code.OVERLOADED)):
        series(one)
    assert series.load() == [[5.0, 0.2], [15.0, 0.0], [25.0, 0.1]]
    assert series.attainment() == [[5.0, 0.5], [25.0, 0.0]]
    assert series.success() == [[5.0, 1.0], [25.0, 0.0]]
    assert series.throughput() == [[5.0, 0.1], [15.0, 0.1], [25.0, 0.0]]
