"""What the monitor is told of the traffic is what became of the requests."""

from shared.messages import Traffic
from simulator.cluster.simulation import Simulation
from simulator.cluster.traffic import TrafficBook
from simulator.measures.outcome import Outcome
from tests.unit.simulator.cluster.fleets import arrivals, fleet


def told(simulation: Simulation, book: TrafficBook) -> Traffic:
    (message,) = book.messages((1, 99))
    return message


def test_the_counts_are_those_of_the_outcomes() -> None:
    outcomes: list[Outcome] = []
    simulation = Simulation(fleet(1, 1, queue_s=2.0, gateways=2, ttft_s=0.5), outcomes.append)
    book = TrafficBook(simulation)
    simulation.feed(arrivals(300, 20.0))
    simulation.run(5.0)
    early = told(simulation, book)
    assert early.open == simulation.open > 0
    assert early.waiting > 0
    assert early.arrived == len(outcomes) + simulation.open
    simulation.run()
    late = told(simulation, book)
    (group,) = late.groups
    good = [one for one in outcomes if one.ok]
    assert late.number == early.number + 1
    assert (late.arrived, late.refused) == (300, 300 - len(good))
    assert late.refused > 20
    assert late.open == late.waiting == 0
    assert late.prompt_tokens == sum(one.arrival.input_tokens for one in outcomes)
    assert (group.finished, group.failed) == (len(good), 0)
    assert group.tokens == sum(one.tokens for one in good)
    assert sum(group.ttft[:5]) == sum(one.ttft is not None and one.ttft <= 0.5 for one in good)
    assert sum(group.ttft) == len(good)
    assert group.prefill_us < group.e2e_us


def test_an_attempt_that_was_lost_counts_as_failed() -> None:
    outcomes: list[Outcome] = []
    simulation = Simulation(fleet(2, 2), outcomes.append)
    book = TrafficBook(simulation)
    simulation.clock.at(5.0, simulation.kill, "chat-main-d0")
    simulation.feed(arrivals(150, 15.0))
    simulation.run()
    (group,) = told(simulation, book).groups
    assert group.finished == 150
    assert group.failed == sum(one.attempts - 1 for one in outcomes) > 0
