"""The simulator against the recorded runs of real clusters, and the parts of comparing."""

import pytest

from simulator.experiments import validation
from simulator.validation.loads import BY_NAME, CALIBRATION, LOADS, Load, NoTraces
from simulator.validation.record import Costs, costs, fleet, kept, recorded, takes
from simulator.validation.served import Answer, Served, apart
from simulator.validation.simulated import PHASES, simulated

CLOSE = 0.05
"""How far the simulator may be from what was recorded: throughput, means, and every percentile."""
QUICK = Costs(0.001, 0.0, 1e9)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_simulated_again_a_recorded_load_is_as_it_was(load: Load) -> None:
    record = recorded()
    try:
        runs = takes(record, load)
        there, ours = Served.of(runs, load), simulated(load, Costs(**record["costs"]), runs)
    except NoTraces as error:
        pytest.skip(str(error))
    found = apart(ours, there)
    assert abs(found.good) <= 0.02
    assert found.most < CLOSE


def test_a_run_that_is_itself_is_not_apart() -> None:
    run = simulated(CALIBRATION, QUICK)
    found = apart(run, run)
    assert found.good == 0.0
    assert found.most == 0.0


def test_a_request_alone_takes_its_prompt_two_messages_the_edge_its_kv_and_its_steps() -> None:
    run = simulated(CALIBRATION, Costs(0.002, 0.003, 64e6))
    assert len(run.answers) == PHASES * len(CALIBRATION.arrivals())
    for one, tokens in zip(run.answers, PHASES * [one.input_tokens for one in CALIBRATION.arrivals()], strict=True):
        ttft_ms, handing_ms = 27.0 + 0.2 * tokens, 4.0 + tokens / 1000  # a decode is asked, answers, and gets the KV
        assert one.ttft_ms == pytest.approx(ttft_ms, abs=0.1)
        assert one.tpot_ms == pytest.approx(51.0 + handing_ms / 7, abs=0.1)
        assert one.e2e_ms == pytest.approx(ttft_ms + handing_ms + 7 * 51.0, abs=0.1)


def test_costs_are_found_again_in_requests_that_were_alone() -> None:
    put_in = Costs(0.0025, 0.0015, 32e6)
    take = simulated(CALIBRATION, put_in).answers[: len(CALIBRATION.arrivals())]
    found = costs([take, take])
    assert found.message_s == pytest.approx(put_in.message_s, abs=1e-4)
    assert found.edge_s == pytest.approx(put_in.edge_s, abs=2e-4)
    assert found.kv_bytes_s == pytest.approx(put_in.kv_bytes_s, rel=0.01)


def test_a_request_that_was_sent_late_is_simulated_late() -> None:
    late = [Answer(700.0 if place == 3 else 0.0, 1.0, 1.0, 1.0) for place in range(len(CALIBRATION.arrivals()))]
    first, again = simulated(CALIBRATION, QUICK), simulated(CALIBRATION, QUICK, [late])
    assert again.answers[3].late_ms == 700.0
    assert again.answers[3].ttft_ms == pytest.approx(first.answers[3].ttft_ms)
    assert again.seconds == pytest.approx(first.seconds)


def test_the_shares_say_what_differs() -> None:
    run = simulated(CALIBRATION, QUICK)
    take = run.answers[: len(CALIBRATION.arrivals())]
    slower = [Answer(0.0, (one.ttft_ms or 0.0) * 2, one.tpot_ms, one.e2e_ms) for one in take]
    slower[0] = Answer(0.0, None, None, 10.0)
    found = apart(run, Served.of([slower], CALIBRATION))
    assert found.good == 1 / len(take)
    assert found.ttft_mean == pytest.approx(-0.5, abs=0.01)
    assert found.tpot_mean == pytest.approx(0.0, abs=0.01)


def test_a_record_of_other_settings_is_refused() -> None:
    record = recorded()
    record["runs"]["drawn"]["fleet"] = [*fleet(BY_NAME["drawn"])[:-1], 1.0]
    with pytest.raises(ValueError, match="record it anew"):
        takes(record, BY_NAME["drawn"])
    with pytest.raises(ValueError, match="answers to"):
        Served.of([[]], CALIBRATION)


def test_what_is_kept_of_a_run_is_read_again() -> None:
    run = [Answer(0.1, 100.0, 51.5, 460.2), Answer(0.0, None, None, 3.0)]
    assert takes({"runs": {"alone": kept(CALIBRATION, [run, run])}}, CALIBRATION) == [run, run]


def test_the_experiment_tells_every_load_that_it_has() -> None:
    found = validation.run(0)
    told = {row[0] for row in found.table.rows}
    assert BY_NAME["drawn"].title in told
    assert set(found.charts) == {"ttft", "tpot"}
    assert len(found.charts["ttft"]["lines"]) == 2 * len(told)
