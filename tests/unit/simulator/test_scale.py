"""An event costs about the same at a hundred instances and at some thousands. Counted in executed lines."""

from simulator.experiments.scale import measured


def test_an_event_costs_the_same_at_a_hundred_instances_and_at_two_thousand() -> None:
    costs = []
    for instances in (100, 2000):
        tally, simulation, each = measured(1, instances, 1500)
        assert tally.all.success == 1.0
        assert simulation.open == 0
        costs.append(each)
    assert costs[1] < 1.35 * costs[0]
