"""The controllers steer a simulated scenario: the ratio to where it belongs, groups by clock and load."""

from dataclasses import replace

from shared.messages import Role
from shared.policy.fleet.events import FleetRules
from shared.policy.steering.rules import RatioRules, ScaleRules, SteeringRules
from simulator.cluster.clients import ClosedLoop
from simulator.cluster.monitor import Monitor, MonitorSpec
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.measures.outcome import Outcome
from tests.unit.simulator.cluster.fleets import PROFILE, arrivals, check_nothing_is_left, fleet

LOADS = replace(PROFILE, load_s=2.0)


def sizes(simulation: Simulation) -> dict[str, tuple[int, int]]:
    return {one.name: (len(one.prefill), len(one.decode)) for one in simulation.map("chat").groups}


def test_a_wrong_ratio_becomes_the_right_one_and_no_request_is_lost_to_it() -> None:
    """A prefill does 8 of these requests a second, a decode 30: four of six should be prefills, 2 is the least."""
    outcomes: list[Outcome] = []
    simulation = Simulation(fleet(2, 4, profile=LOADS, prefill_slots=4), outcomes.append)
    rules = SteeringRules("chat", 2, 4, ratio=RatioRules(window_s=10.0, hold_s=5.0, rest_s=10.0))
    monitor = Monitor(simulation, MonitorSpec(steering=(rules,)))
    ClosedLoop(simulation, arrivals(3500, 1000.0), 24)
    simulation.run()
    assert sizes(simulation) == {"main": (4, 2)}
    assert [reason.kind for _, _, reason in monitor.told] == ["ratio", "ratio"]
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert len(outcomes) == 3500
    first, last = (
        sum(begin <= one.ended < begin + 15.0 for one in outcomes) for begin in (0.0, simulation.clock.now - 25.0)
    )
    assert last > 1.6 * first, "twice the prefills do nearly twice as much"
    flipped = [name for name, one in simulation.workers.items() if "-d" in name and one.role is Role.PREFILL]
    assert len(flipped) == 2
    assert monitor.hands.loads == {"chat": 2}
    check_nothing_is_left(simulation)


def test_a_right_ratio_stays() -> None:
    outcomes: list[Outcome] = []
    simulation = Simulation(fleet(4, 2, profile=LOADS, prefill_slots=4), outcomes.append)
    rules = SteeringRules("chat", 4, 2, ratio=RatioRules(window_s=10.0, hold_s=5.0, rest_s=10.0))
    monitor = Monitor(simulation, MonitorSpec(steering=(rules,)))
    ClosedLoop(simulation, arrivals(2500, 1000.0), 24)
    simulation.run()
    assert not monitor.told
    assert all(one.ok and one.attempts == 1 for one in outcomes)


def scaled(scale: ScaleRules, groups: int) -> tuple[Simulation, Monitor, list[Outcome]]:
    outcomes: list[Outcome] = []
    sites = tuple(GroupSpec(f"main-{number + 1}" if number else "main", 1, 1, LOADS) for number in range(groups))
    simulation = Simulation(FleetSpec((ScenarioSpec("chat", sites, prefill_slots=4),)), outcomes.append)
    rules = SteeringRules("chat", 1, 1, groups=groups, ratio=RatioRules(mode="fixed", window_s=10.0), scale=scale)
    fleet_rules = FleetRules(settle_s=30.0, release=True, release_s=5.0)
    spec = MonitorSpec(fleet_rules, (rules,), provide_s=3.0, most=8, unix=50.0, days_faster=1.0)
    return simulation, Monitor(simulation, spec), outcomes


def test_a_group_that_leaves_by_the_clock_finishes_what_it_holds_and_its_instances_are_given_back() -> None:
    """From the next full minute on, ten seconds after the begin, one group is enough."""
    simulation, monitor, outcomes = scaled(ScaleRules(timetable=("0 0 * * * = 2", "1 0 * * * = 1")), 2)
    simulation.feed(arrivals(400, 6.0))
    simulation.run()
    assert sizes(simulation) == {"main": (1, 1)}
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert all(one.attempts == 1 for one in outcomes), "nothing had to begin again"
    assert any("main-2" in one.decode for one in outcomes)
    assert monitor.hands.instances == 2
    check_nothing_is_left(simulation)


def test_groups_come_with_the_load_and_leave_when_it_is_gone() -> None:
    simulation, monitor, outcomes = scaled(ScaleRules(most=3, up_s=5.0, down_s=15.0), 1)
    simulation.feed(arrivals(1200, 12.0))
    most = 0
    while simulation.open or simulation.clock.now < 100.0:
        simulation.run(simulation.clock.now + 1.0)
        most = max(most, len(sizes(simulation)))
    simulation.run(250.0)
    assert most >= 2
    assert sizes(simulation) == {"main": (1, 1)}
    assert monitor.hands.instances == 2
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    check_nothing_is_left(simulation)


def test_instances_count_for_as_long_as_they_are_there() -> None:
    simulation, monitor, _ = scaled(ScaleRules(timetable=("0 0 * * * = 1", "1 0 * * * = 2")), 1)
    simulation.run(10.0)
    assert monitor.hands.instance_s == 20.0
    simulation.run(100.0)
    assert sizes(simulation) == {"main": (1, 1), "main-2": (1, 1)}
    come = 100.0 - (monitor.hands.instance_s - 200.0) / 2
    assert 13.0 <= come < 16.0, "three seconds for the provisioner, after the minute"
