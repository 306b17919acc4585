"""The simulated monitor replaces who is lost, by one standby, and no request is lost with anybody."""

from cProfile import Profile
from dataclasses import replace

import pytest

from services.monitor.plans import fleet_rules
from shared.config import Config, ScenarioSettings
from shared.messages import GroupPhase, Role
from shared.policy.dispatch_events import DispatchRules
from shared.policy.fleet.events import Cause, DrainAsked, FleetRules
from simulator.cluster.monitor import Monitor, MonitorSpec
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.measures.outcome import Outcome
from tests.unit.simulator.cluster.fleets import PROFILE, arrivals, check_nothing_is_left, fleet

LOADS = replace(PROFILE, load_s=5.0)


def monitored(
    prefill: int, decode: int, spec: MonitorSpec, rules: DispatchRules | None = None
) -> tuple[Simulation, Monitor, list[Outcome]]:
    outcomes: list[Outcome] = []
    simulation = Simulation(fleet(prefill, decode, profile=LOADS, rules=rules or DispatchRules()), outcomes.append)
    return simulation, Monitor(simulation, spec), outcomes


def members(simulation: Simulation) -> tuple[list[str], list[str]]:
    (main,) = simulation.map("chat").groups
    assert all(one.joined for one in (*main.prefill, *main.decode))
    return [one.instance for one in main.prefill], [one.instance for one in main.decode]


@pytest.mark.parametrize("spec", [MonitorSpec(standbys=3), MonitorSpec(standbys=3, host_answers=False)])
@pytest.mark.parametrize("role", ["p0", "d0"])
def test_one_that_dies_is_replaced_by_exactly_one_standby_and_no_request_is_lost(role: str, spec: MonitorSpec) -> None:
    simulation, monitor, outcomes = monitored(3, 3, spec)
    simulation.clock.at(10.0, monitor.kill, f"chat-main-{role}")
    simulation.feed(arrivals(600, 18.0))
    simulation.run()
    assert len(outcomes) == 600
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    prefills, decodes = members(simulation)
    assert len(prefills) == len(decodes) == 3
    assert [name for name in prefills + decodes if name.startswith("s")] == ["s0"]
    assert f"chat-main-{role}" not in prefills + decodes
    assert monitor.hands.free == 2
    (when, _), ((joined, substituted),) = monitor.retired[0], monitor.substituted
    assert 10.0 < when < 12.6, "silence of four heartbeats, or a refused probe before"
    assert joined - when == pytest.approx(1.0 + 5.0 + 0.1, abs=0.1)
    assert substituted.instance == "s0"
    assert any("s0" in (one.prefill, one.decode) for one in outcomes), "the substitute serves"
    assert sorted(monitor.hands.loads.items()) == [("chat", 1)], "nobody else loads anything"
    check_nothing_is_left(simulation)


def test_without_a_standby_the_rest_serves_on_until_the_repair() -> None:
    simulation, monitor, outcomes = monitored(2, 2, MonitorSpec())
    simulation.clock.at(10.0, monitor.kill, "chat-main-d0")
    simulation.clock.at(20.0, monitor.repair, "chat-main-d0")
    simulation.feed(arrivals(500, 12.0))
    simulation.run(19.0)
    assert members(simulation)[1] == ["chat-main-d1"]
    simulation.run()
    assert members(simulation)[1] == ["chat-main-d0", "chat-main-d1"]
    assert all(one.ok for one in outcomes)
    check_nothing_is_left(simulation)


@pytest.mark.parametrize("role", ["p0", "d0"])
def test_one_that_stood_still_comes_back_as_a_standby(role: str) -> None:
    simulation, monitor, outcomes = monitored(2, 2, MonitorSpec(standbys=1))
    simulation.clock.at(10.0, simulation.freeze, f"chat-main-{role}", 12.0)
    simulation.feed(arrivals(600, 10.0))
    simulation.run()
    assert [retired.cause for _, retired in monitor.retired] == [Cause.SILENT]
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert any("s0" in names for names in members(simulation))
    assert list(monitor.hands.standbys) == [f"chat-main-{role}"]
    assert monitor.hands.standbys[f"chat-main-{role}"].free
    check_nothing_is_left(simulation)


def test_a_substitute_that_dies_while_it_loads_is_replaced_in_turn() -> None:
    simulation, monitor, outcomes = monitored(2, 2, MonitorSpec(standbys=2))
    simulation.clock.at(10.0, monitor.kill, "chat-main-p0")
    simulation.clock.at(14.0, monitor.kill, "s0")
    simulation.feed(arrivals(800, 10.0))
    simulation.run()
    assert sorted(members(simulation)[0]) == ["chat-main-p1", "s1"]
    assert monitor.hands.instances == 4
    assert all(one.ok for one in outcomes)


def test_a_member_that_is_to_leave_finishes_what_it_holds() -> None:
    simulation, monitor, outcomes = monitored(2, 2, MonitorSpec(standbys=1))
    simulation.clock.at(10.0, monitor._feed, DrainAsked("chat-main-d0"))
    simulation.feed(arrivals(400, 12.0))
    simulation.run()
    assert all(one.ok and one.attempts == 1 for one in outcomes), "nothing had to begin again"
    assert sorted(members(simulation)[1]) == ["chat-main-d1", "s0"]
    assert monitor.hands.serves("chat-main-d0") is None
    assert monitor.hands.instances == 4
    check_nothing_is_left(simulation)


def test_a_provisioner_brings_what_is_missing_and_gets_back_what_is_too_many() -> None:
    rules = FleetRules(settle_s=30.0, standbys=1, release=True, release_s=5.0)
    simulation, monitor, outcomes = monitored(2, 2, MonitorSpec(rules, standbys=3, provide_s=8.0, most=10))
    simulation.clock.at(20.0, monitor.kill, "chat-main-p0")
    simulation.feed(arrivals(500, 10.0))
    simulation.run(19.0)
    assert monitor.hands.free == 1
    assert monitor.hands.instances == 5
    simulation.run()
    assert sum(map(len, members(simulation))) == 4
    assert monitor.hands.free == 1, "one for the next loss, brought after this one"
    assert monitor.hands.instances == 5
    assert all(one.ok for one in outcomes)


def test_a_group_without_one_of_its_roles_is_filled_again() -> None:
    simulation, monitor, outcomes = monitored(1, 2, MonitorSpec(standbys=1))
    simulation.clock.at(10.0, monitor.kill, "chat-main-p0")
    simulation.feed(arrivals(150, 5.0))
    simulation.run()
    assert simulation.map("chat").groups[0].phase is GroupPhase.OPEN
    assert members(simulation)[0] == ["s0"]
    assert all(one.ok for one in outcomes), "who came meanwhile waited at the gateway"
    assert simulation.workers["s0"].role is Role.PREFILL
    check_nothing_is_left(simulation)


def test_the_same_seed_brings_the_same_to_the_last_digit() -> None:
    ends = []
    for _ in range(2):
        simulation, monitor, outcomes = monitored(2, 2, MonitorSpec(standbys=1))
        simulation.clock.at(10.0, monitor.kill, "chat-main-d0")
        simulation.feed(arrivals(300, 12.0))
        simulation.run()
        ends.append([(one.first, one.ended, one.prefill, one.decode) for one in outcomes])
    assert ends[0] == ends[1]


def test_what_a_status_costs_does_not_grow_with_the_fleet() -> None:
    """Counted in function calls, of which a look at all of the fleet would make many more."""
    calls = []
    for groups in (2, 30):
        sites = tuple(GroupSpec(f"main-{number}", 2, 2, LOADS) for number in range(groups))
        simulation = Simulation(FleetSpec((ScenarioSpec("chat", sites),)), lambda _: None)
        Monitor(simulation, MonitorSpec(standbys=2))
        simulation.run(3.0)
        said, counted = simulation.bus.said, Profile()
        counted.enable()
        simulation.run(9.0)
        counted.disable()
        total = sum(entry.callcount for entry in counted.getstats())
        calls.append(total / (simulation.bus.said - said))
    assert calls[1] < 1.2 * calls[0]


def test_the_monitors_settings_are_those_of_the_product() -> None:
    config = Config(scenario={"chat": ScenarioSettings(model="test")})
    ours = MonitorSpec()
    assert replace(ours.rules, heartbeat_s=config.fleet.heartbeat_s) == fleet_rules(config)
    assert ours.lease_ttl_s == config.fleet.lease_ttl_s


def test_what_a_member_cannot_finish_in_time_goes_on_elsewhere() -> None:
    spec = MonitorSpec(FleetRules(settle_s=30.0, drain_s=0.2), standbys=1)
    simulation, monitor, outcomes = monitored(2, 2, spec)
    simulation.clock.at(10.0, monitor._feed, DrainAsked("chat-main-d0"))
    simulation.feed(arrivals(400, 12.0))
    simulation.run()
    assert all(one.ok and one.tokens == one.arrival.output_tokens for one in outcomes)
    assert any(one.attempts > 1 for one in outcomes)
    check_nothing_is_left(simulation)
