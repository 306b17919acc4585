"""What is drawn has the means that were asked for, and comes again from its seed."""

from itertools import islice, pairwise
from math import inf
from random import Random
from statistics import fmean, pstdev

import pytest

from simulator.workload.arrival import Arrival
from simulator.workload.mixing import as_scenario, faster, first, mixed, repeated, shifted
from simulator.workload.synthetic import (
    Prefixes,
    bursty,
    fixed,
    lognormal,
    on_off,
    poisson,
    resampled,
    workload,
)
from simulator.workload.tides import by_hour, sinus, tide


@pytest.mark.parametrize(("variation", "times"), [(1.0, poisson), (3.0, None), (0.3, None)])
def test_gaps_have_their_mean_and_their_variation(variation: float, times: object) -> None:
    made = poisson(5.0, seed=2) if times else bursty(5.0, variation, seed=2)
    moments = list(islice(made, 40_000))
    gaps = [later - one for one, later in pairwise(moments)]
    assert fmean(gaps) == pytest.approx(0.2, rel=0.05)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(variation, rel=0.06)


def test_on_and_off_leaves_seconds_empty() -> None:
    moments = list(on_off(10.0, 20.0, 60.0, 4000.0, seed=4))
    assert moments == sorted(moments)
    assert 0.1 < len(moments) / 4000 / 10 < 0.45, "a quarter of the time"
    assert max(later - one for one, later in pairwise(moments)) > 30


def test_lengths_have_their_median_and_tail() -> None:
    rng, draw = Random(1), lognormal((1000, 4000), (130, 450))
    drawn = sorted(draw(rng)[0] for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(1000, rel=0.05)
    assert drawn[19_000] == pytest.approx(4000, rel=0.08)
    assert resampled([Arrival(0, 3, 4)])(rng) == fixed(3, 4)(rng) == (3, 4)


def test_prompts_share_their_beginnings_within_a_scenario_and_nothing_beyond_it() -> None:
    rng = Random(5)
    one = Prefixes(4, 128, block_tokens=64, family=1)
    other = Prefixes(4, 128, block_tokens=64, family=2)
    drawn = [one.blocks(500, rng) for _ in range(400)]
    assert all(len(blocks) == 8 and len(set(blocks)) == 8 for blocks in drawn)
    beginnings = [blocks[:2] for blocks in drawn]
    counts = sorted(beginnings.count(begin) for begin in set(beginnings))
    assert len(counts) == 4
    assert counts[-1] > 2.5 * counts[0], "the first is used most"
    tails = [block for blocks in drawn for block in blocks[2:]]
    assert len(set(tails)) == len(tails)
    assert not {block for blocks in drawn for block in blocks} & set(other.blocks(500, rng))
    assert len({one.blocks(60, rng) for _ in range(9)}) == 9, "a block that is not full is its own"


def test_a_day_has_its_night() -> None:
    rate = sinus(2.0, 10.0, peak_h=12.0, day_s=1000.0)
    assert rate(500.0) == pytest.approx(10.0)
    assert rate(0.0) == pytest.approx(2.0)
    moments = list(tide(rate, 10.0, 2000.0, seed=1))
    day = [one for one in moments if 400 < one % 1000 < 600]
    night = [one for one in moments if not 100 < one % 1000 < 900]
    assert len(day) > 3 * len(night)
    assert len(moments) == pytest.approx(12_000, rel=0.05)
    assert by_hour([1.0, 3.0], day_s=10.0)(7.0) == 3.0
    with pytest.raises(ValueError, match="above"):
        list(tide(rate, 5.0, 2000.0, seed=1))


def test_workloads_are_cut_and_laid_over_each_other() -> None:
    def make() -> list[Arrival]:
        return [Arrival(float(at), 1 + at, 1, (at,)) for at in range(10)]

    assert [one.at for one in shifted(make, 10.0, 4.0)] == [float(at) for at in range(10)]
    assert [one.input_tokens for one in shifted(make, 10.0, 4.0)] == [5, 6, 7, 8, 9, 10, 1, 2, 3, 4]
    assert [one.at for one in repeated(make, 10.0, 2)][10] == 10.0
    assert [one.at for one in faster(make(), 2.0)][-1] == 4.5
    both = list(mixed(first(make(), 2), as_scenario(make(), "code", "t")))
    assert len(both) == 12
    assert both == sorted(both, key=lambda one: one.at)
    assert {(one.scenario, one.tenant) for one in both} == {("chat", ""), ("code", "t")}


def test_the_same_seed_brings_the_same() -> None:
    def make(seed: int) -> list[Arrival]:
        drawn = workload(poisson(3.0, 100.0, seed=seed), lognormal((100, 400), (10, 40)), seed=seed, tenants=("a", "b"))
        return list(drawn)

    assert make(1) == make(1) != make(2)
    assert {one.tenant for one in make(1)} == {"a", "b"}
    assert inf not in {one.at for one in make(1)}
