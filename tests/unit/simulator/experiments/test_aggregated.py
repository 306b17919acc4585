"""Disaggregated against aggregated serving on small loads, where it is known who must win."""

from math import inf, isnan

import pytest

from simulator.baselines.aggregated import aggregated
from simulator.engine.forms import Linear
from simulator.engine.profile import Profile
from simulator.experiments import aggregated as experiment
from simulator.experiments.aggregated import PACES, SHARES, SMALL, Case, Compared, apart, compared, ratios
from simulator.experiments.goodput import Load, Runs, best, capacity, goodput, sized
from simulator.experiments.lengths import FILES, of_trace
from simulator.measures.tally import Objectives
from tests.unit.simulator.traces import trace

PROFILE = Profile("small", Linear(0.0, 1e-4, 0.0, 0.01, 0.0, 0.0), kv_tokens=100_000, kv_bytes_per_token=1000)
LOAD = Load("1000 : 50", [(1000, 50)], 90)


def runs(load: Load = LOAD, prefills: int = 1) -> Runs:
    """One disaggregated pair."""
    return Runs("1:1", apart(PROFILE, prefills, prefills + 1), load, 0.5, seed=1)


def test_goodput_is_near_what_a_prefill_can_compute() -> None:
    found = goodput(runs(), Objectives(0.5, 0.02), 0.9)
    assert 5.0 < found < 11.0  # a prompt takes 0.1 s


def test_a_looser_objective_never_brings_less() -> None:
    same = runs()
    tight, loose = (goodput(same, Objectives(ttft, 0.02), 0.9) for ttft in (0.2, 1.0))
    assert 0.0 < tight <= loose


def test_an_objective_below_an_empty_engine_s_time_has_no_goodput() -> None:
    assert goodput(runs(), Objectives(0.05, 0.02), 0.9) == 0.0
    assert goodput(runs(), Objectives(0.5, 0.005), 0.9) == 0.0


def test_the_best_of_several_is_found_whichever_comes_first() -> None:
    aims = Objectives(0.5, 0.02)
    for order in (1, -1):
        several = [runs(), Runs("2:1", apart(PROFILE, 2, 3), LOAD, 0.5, seed=1)][::order]
        rate, name = best(several, aims, 0.9)
        assert name == "2:1"
        assert rate == pytest.approx(goodput(Runs("", apart(PROFILE, 2, 3), LOAD, 0.5, seed=1), aims, 0.9))


def test_tight_tpot_wants_them_apart_and_loose_tpot_together() -> None:
    """A stream that waits for prompts of 0.1 s, 50 steps of 0.01 s long, has its pace doubled by five of them."""
    aims = [(Objectives(1.0, 0.012), 0.95), (Objectives(1.0, 0.5), 0.95)]
    tight, loose = compared(PROFILE, LOAD, aims, seed=1, instances=2)
    assert tight.over_best > 2.0
    assert loose.over_best < 1.0


def test_the_ratio_of_the_equation_is_tried_first() -> None:
    assert ratios(PROFILE, Load("", [(4000, 10)], 1), 6)[0] == 5
    assert ratios(PROFILE, Load("", [(10, 4000)], 1), 6)[0] == 1


def test_who_cannot_at_all_is_told_apart_from_who_carries_nothing_more() -> None:
    def one(apart_rate: float, together: float) -> Compared:
        return Compared(Objectives(), 0.9, (apart_rate, ""), (together, ""), (0.0, ""))

    assert one(1.0, 0.0).over_first == inf
    assert isnan(one(0.0, 0.0).over_first)
    assert one(1.0, 2.0).over_first == one(1.0, 2.0).over_best == 0.5


def test_prompts_first_stop_the_streams_and_chunks_slow_them() -> None:
    """At one rate chunks keep a pace that prompts first do not, and the other way round for the first token."""
    load = Load("2000 : 100", [(2000, 100)], 90)
    first = Runs("", aggregated(PROFILE, 1), load, 1.0, seed=1)
    chunks = Runs("", aggregated(PROFILE, 1, 256), load, 1.0, seed=1)
    assert first.attained(2, Objectives(tpot=0.02)) < chunks.attained(2, Objectives(tpot=0.08))
    assert first.attained(2, Objectives(ttft=0.3)) > chunks.attained(2, Objectives(ttft=0.3))


def test_a_run_is_as_long_as_its_answers_want_within_bounds() -> None:
    long = sized("", [(100, 1000)], PROFILE, 2, 1.0, (10, 100_000))
    assert long.number >= 3.0 * 1000 * 0.01 * 2 * capacity(PROFILE, long) * 0.9
    assert sized("", [(100, 1000)], PROFILE, 2, 1.0, (10, 50)).number == 50


def test_the_map_has_each_pair_of_objectives_once_and_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "LEAST", 40)
    monkeypatch.setattr(experiment, "CASES", (Case("900 : 30", instances=2, most=40, fixed=(900, 30)),))
    found = experiment.run(1)
    assert len({row[2:5] for row in found.table.rows}) == len(found.table.rows) == 2 * len(PACES[SMALL]) * len(SHARES)
    assert all(len(row) == len(found.table.head) for row in found.table.rows)
    assert experiment.run(1) == found


@pytest.mark.parametrize("name", [name for name in FILES if name != "deepseek-r1"])  # whose clients take long
def test_lengths_of_traces_are_read_by_a_short_name(name: str) -> None:
    trace("")
    pairs = of_trace(name, 1, 50)
    assert len(pairs) == 50
    assert min(min(pair) for pair in pairs) >= 1
