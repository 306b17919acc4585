"""The simulator against the recorded runs of real clusters, and the parts of comparing."""

import pytest

from simulator.experiments import validation
from simulator.validation.loads import BY_NAME, CALIBRATION, LOADS, Load, NoTraces
from simulator.validation.served import Answer, Served, apart, fleet, real, recorded, simulated

CLOSE = 0.05
"""How far the simulator may be from a recorded run: throughput, means, and the percentiles of most requests."""
FARTHER = 0.1
"""The same of any percentile: one of a hundred requests, on a machine that others use, too."""


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_simulated_again_a_recorded_run_is_as_it_was(load: Load) -> None:
    record = recorded()
    try:
        there = real(record, load)
    except NoTraces as error:
        pytest.skip(str(error))
    found = apart(simulated(load, record["message_s"]), there)
    assert abs(found.good) <= 0.02 * len(there.answers)
    assert abs(found.tokens_s) < CLOSE
    assert abs(found.ttft_mean) < CLOSE
    assert abs(found.tpot_mean) < CLOSE
    assert max(found.ttft, found.tpot) < FARTHER


def test_a_run_that_is_itself_is_not_apart() -> None:
    run = simulated(CALIBRATION, 0.001)
    found = apart(run, run)
    assert found.good == 0
    assert found.most == 0.0


def test_a_request_alone_takes_its_prompt_two_messages_and_its_steps() -> None:
    run = simulated(CALIBRATION, 0.002)
    for one in run.answers[1:]:  # the first one comes before the fleet is known
        assert one.ttft_ms == pytest.approx(104.0, abs=0.1)
        assert one.e2e_ms == pytest.approx(104.0 + 7 * 51.0, abs=10.0)


def test_the_shares_say_what_differs() -> None:
    run = simulated(CALIBRATION, 0.001)
    slower = [Answer((one.ttft_ms or 0.0) * 2, one.tpot_ms, one.e2e_ms) for one in run.answers]
    slower[0] = Answer(None, None, 10.0)
    found = apart(run, Served.of(slower, CALIBRATION))
    assert found.good == 1
    assert found.ttft_mean == pytest.approx(-0.5, abs=0.01)
    assert found.tpot_mean == pytest.approx(0.0, abs=0.01)


def test_a_record_of_other_settings_is_refused() -> None:
    record = recorded()
    record["runs"]["drawn"]["fleet"] = [*fleet(BY_NAME["drawn"])[:-1], 1.0]
    with pytest.raises(ValueError, match="record it anew"):
        real(record, BY_NAME["drawn"])
    with pytest.raises(ValueError, match="answers to"):
        Served.of([], CALIBRATION)


def test_the_experiment_tells_every_load_that_it_has() -> None:
    found = validation.run(0)
    told = {row[0] for row in found.table.rows}
    assert BY_NAME["drawn"].title in told
    assert set(found.charts) == {"ttft", "tpot"}
    assert len(found.charts["ttft"]["lines"]) == 2 * len(told)
