"""Strategy bands: the fit to figure 8, and fleets whose gateway prefers a strategy."""

import pytest

from simulator.cluster.simulation import Simulation
from simulator.engine.strategies import DEGREES, FIGURE_8
from simulator.experiments.banding import Banding
from simulator.experiments.bands import ALL_THREE, PAPER, Fleet, banded, saturated, spec, tidal, winners
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival


@pytest.mark.parametrize("degree", DEGREES)
def test_one_stream_is_as_fast_as_in_the_paper(degree: int) -> None:
    assert saturated(degree, 1, seed=1, seconds=9.0) == pytest.approx(FIGURE_8[degree][0], rel=0.05)


def test_the_paper_s_own_figure_says_that_its_last_band_begins_too_late() -> None:
    assert winners(FIGURE_8) == [8, 8, 4, 8, 8, 8, 4, 2, 2, 2]
    assert banded(FIGURE_8, 0) == 1.0
    assert banded(FIGURE_8, 8) == pytest.approx(7_295 / 15_792)
    assert banded(FIGURE_8, 9) == 1.0


def test_few_streams_go_to_the_strategy_whose_band_it_is_and_many_to_the_next() -> None:
    used: list[str] = []
    simulation = Simulation(spec(Fleet("", ALL_THREE, PAPER)), lambda outcome: used.append(_group(outcome)))
    Banding(simulation, "chat", {f"tp{degree}": edges for degree, edges in PAPER.items()})
    simulation.feed([Arrival(2.0 + 0.1 * n, 200, 50) for n in range(20)])
    simulation.run()
    assert set(used) == {"tp8"}
    used.clear()
    simulation.feed([Arrival(0.02 * n, 200, 500) for n in range(600)])
    simulation.run()
    assert used.count("tp4") > used.count("tp8")


def _group(outcome: Outcome) -> str:
    return outcome.decode.split("-")[1]


def test_nobody_is_preferred_without_bands() -> None:
    used: list[str] = []
    simulation = Simulation(spec(Fleet("", ALL_THREE)), lambda outcome: used.append(_group(outcome)))
    simulation.feed([Arrival(0.01 * n, 200, 300) for n in range(60)])
    simulation.run()
    assert set(used) == {"tp8", "tp4", "tp2"}


def test_a_tide_is_quiet_at_its_ends_and_busy_in_its_middle() -> None:
    quiet, busy = tidal(Fleet("", {4: 6}), seed=1, peak=20.0, seconds=20.0)
    assert 0 < len(quiet.ttft) < len(busy.ttft)
    assert quiet.tpot.mean < busy.tpot.mean
    assert 0.0 < quiet.tokens_s < busy.tokens_s
