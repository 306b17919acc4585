"""The simulator against the recorded runs of real clusters, and the parts of comparing."""

import pytest

from simulator.experiments import validation
from simulator.validation.calibration import costs
from simulator.validation.loads import BY_NAME, CALIBRATION, LOADS, Load, NoTraces
from simulator.validation.record import Costs, fleet, kept, recorded, takes
from simulator.validation.served import Answer, Served, apart
from simulator.validation.simulated import PHASES, simulated
from simulator.workload.arrival import Arrival

CLOSE = 0.05
"""How far the simulator may be from what was recorded: throughput, means, and the area between the distributions."""
FARTHER = 0.2
"""The same of a single percentile, where one request of two hundred may be the difference between 28 and 34 ms."""
ALONE = Load("alone", "", lambda: [Arrival(1.5 * place, 200 * (1 + place % 3), 8) for place in range(6)], 1, 1)
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
    assert max(found.farthest) < FARTHER


def test_a_run_that_is_itself_is_not_apart() -> None:
    run = simulated(ALONE, QUICK)
    found = apart(run, run)
    assert found.good == 0.0
    assert found.most == 0.0


def test_a_request_alone_takes_its_prompt_two_messages_the_edge_its_kv_and_its_steps() -> None:
    run = simulated(ALONE, Costs(0.002, 0.003, 64e6))
    assert len(run.answers) == PHASES * len(ALONE.arrivals())
    for one, tokens in zip(run.answers, PHASES * [one.input_tokens for one in ALONE.arrivals()], strict=True):
        ttft_ms, handing_ms = 27.0 + 0.2 * tokens, 4.5 + tokens / 1000  # asked, answered, the exchange, the KV
        assert one.ttft_ms == pytest.approx(ttft_ms, abs=0.1)
        assert one.tpot_ms == pytest.approx(51.0 + handing_ms / 7, abs=0.1)
        assert one.e2e_ms == pytest.approx(ttft_ms + handing_ms + 7 * 51.0, abs=0.1)


@pytest.mark.long
def test_costs_are_found_again() -> None:
    put_in = Costs(0.0025, 0.0015, 32e6)
    take = simulated(CALIBRATION, put_in).answers[: len(CALIBRATION.arrivals())]  # one of its phases
    found = costs([take])
    assert found.message_s == pytest.approx(put_in.message_s, abs=4e-4)
    assert found.edge_s == pytest.approx(put_in.edge_s, abs=8e-4)
    assert found.kv_bytes_s == pytest.approx(put_in.kv_bytes_s, rel=0.5)


@pytest.mark.long
def test_the_recorded_costs_are_those_of_the_recorded_calibration() -> None:
    record = recorded()
    found, kept_there = costs(takes(record, CALIBRATION)), Costs(**record["costs"])
    assert found.message_s == pytest.approx(kept_there.message_s, rel=0.1)
    assert found.edge_s == pytest.approx(kept_there.edge_s, abs=5e-4)
    assert found.kv_bytes_s == pytest.approx(kept_there.kv_bytes_s, rel=0.2)


def test_a_request_that_was_sent_late_is_simulated_late() -> None:
    late = [Answer(700.0 if place == 3 else 0.0, 1.0, 1.0, 1.0) for place in range(len(ALONE.arrivals()))]
    first, again = simulated(ALONE, QUICK), simulated(ALONE, QUICK, [late])
    assert again.answers[3].late_ms == 700.0
    assert again.answers[3].ttft_ms == pytest.approx(first.answers[3].ttft_ms)
    assert again.seconds == pytest.approx(first.seconds)


def test_the_shares_say_what_differs() -> None:
    run = simulated(ALONE, QUICK)
    take = run.answers[: len(ALONE.arrivals())]
    slower = [Answer(0.0, (one.ttft_ms or 0.0) * 2, one.tpot_ms, one.e2e_ms) for one in take]
    slower[0] = Answer(0.0, None, None, 10.0)
    found = apart(run, Served.of([slower], ALONE))
    assert found.good == pytest.approx(1 / len(take))
    assert found.ttft_mean == pytest.approx(-0.5, abs=0.05)
    assert found.tpot_mean == pytest.approx(0.0, abs=0.01)


def test_a_record_of_other_settings_is_refused() -> None:
    record = recorded()
    record["runs"]["drawn"]["fleet"] = [*fleet(BY_NAME["drawn"])[:-1], 1.0]
    with pytest.raises(ValueError, match="record it anew"):
        takes(record, BY_NAME["drawn"])
    with pytest.raises(ValueError, match="answers to"):
        Served.of([[]], ALONE)


def test_what_is_kept_of_a_run_is_read_again() -> None:
    run = [Answer(0.1, 100.0, 51.5, 460.2), Answer(0.0, None, None, 3.0)]
    assert takes({"runs": {"alone": kept(ALONE, [run, run])}}, ALONE) == [run, run]


def test_the_experiment_tells_of_a_load_and_of_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "LOADS", (BY_NAME["drawn"],))
    found = validation.run(0)
    assert {row[0] for row in found.table.rows} == {BY_NAME["drawn"].title}
    assert {name: len(chart["lines"]) for name, chart in found.charts.items()} == {"ttft": 2, "tpot": 2}
    monkeypatch.setattr(validation, "CLOSE", 0.0)
    assert "percentiles (10 to 99) are within 0 % (not drawn TTFT p10 by " in validation.run(0).says
