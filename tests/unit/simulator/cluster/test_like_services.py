"""What the services do and a simulation easily forgets: found by holding the two against each other."""

from shared.policy.routes import RouteRules
from simulator.cluster.simulation import Simulation
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival
from tests.unit.simulator.cluster.fleets import check_nothing_is_left, fleet


def test_a_prompt_computed_at_a_decode_counts_as_handed_over_with_its_first_token() -> None:
    outcomes: list[Outcome] = []
    simulation = Simulation(fleet(0, 1, routes=RouteRules(local_tokens=1 << 30)), outcomes.append)
    simulation.feed([Arrival(0.0, 500, 100)])
    simulation.run(1.0)
    dispatcher = simulation.gateways[0].dispatcher
    assert dispatcher.open == 1, "it is decoded now"
    request = dispatcher._book.get("g0-1")
    assert request is not None
    assert request.decoding
    assert all(not one.open for one in dispatcher.view._workers.values())
    simulation.run()
    assert outcomes[0].ok
    check_nothing_is_left(simulation)


def test_a_prompt_finds_the_blocks_of_the_one_computed_just_before_it() -> None:
    outcomes: list[Outcome] = []
    simulation = Simulation(fleet(1, 1, block_tokens=64, cache_blocks=None), outcomes.append)
    simulation.feed([Arrival(0.0, 640, 1, tuple(range(10))), Arrival(0.01, 640, 1, (*range(9), 77))])
    simulation.run()
    assert [one.cached for one in outcomes] == [0, 9 * 64]
