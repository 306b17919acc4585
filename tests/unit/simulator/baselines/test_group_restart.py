"""The comparison: a whole group goes and comes back, and what it held is lost."""

from dataclasses import replace

from shared.errors import Code
from simulator.baselines.group_restart import LOST, GroupRestart
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.measures.outcome import Outcome
from tests.unit.simulator.cluster.fleets import PROFILE, arrivals, check_nothing_is_left

LOADS = replace(PROFILE, load_s=10.0)


def restarting(standbys: int, groups: int = 1) -> tuple[Simulation, GroupRestart, list[Outcome]]:
    outcomes: list[Outcome] = []
    sites = tuple(GroupSpec(f"g{number}", 2, 2, LOADS) for number in range(groups))
    scenario = ScenarioSpec("chat", sites, queue_s=5.0)
    simulation = Simulation(FleetSpec((scenario,), rules=LOST), outcomes.append)
    return simulation, GroupRestart(simulation, standbys, detect_s=2.0), outcomes


def test_one_death_takes_the_whole_group_away_until_it_has_loaded_again() -> None:
    simulation, keeper, outcomes = restarting(standbys=1)
    simulation.clock.at(10.0, keeper.kill, "chat-g0-p0")
    simulation.feed(arrivals(500, 12.0))
    simulation.run(12.5)
    assert not simulation.map("chat").groups
    simulation.run(23.0)
    assert not simulation.map("chat").groups
    simulation.run()
    (group,) = simulation.map("chat").groups
    assert sorted(one.instance for one in group.prefill) == ["chat-g0-p1", "s0"]
    assert keeper.restarts == 1
    lost = [one for one in outcomes if not one.ok]
    assert all(9.0 < one.arrived < 23.2 for one in lost)
    assert any(one.first is not None and one.tokens for one in lost), "streams broke off"
    assert any(one.code is not Code.OVERLOADED for one in lost)
    assert all(one.ok for one in outcomes if one.arrived > 23.5)
    check_nothing_is_left(simulation)


def test_other_groups_serve_on() -> None:
    simulation, keeper, outcomes = restarting(standbys=1, groups=2)
    simulation.clock.at(10.0, keeper.kill, "chat-g0-d0")
    simulation.feed(arrivals(500, 10.0))
    simulation.run()
    assert [group.name for group in simulation.map("chat").groups] == ["g1", "g0"]
    assert all("g0" not in one.prefill for one in outcomes if one.ok and 13.0 < one.arrived < 22.0)
    assert sum(not one.ok for one in outcomes) < 20


def test_without_a_standby_it_waits_for_the_repair() -> None:
    simulation, keeper, outcomes = restarting(standbys=0)
    simulation.clock.at(10.0, keeper.kill, "chat-g0-d0")
    simulation.clock.at(40.0, keeper.repair, "chat-g0-d0")
    simulation.feed(arrivals(700, 12.0))
    simulation.run(50.0)
    assert not simulation.map("chat").groups
    simulation.run()
    assert len(simulation.map("chat").groups[0].decode) == 2
    assert all(one.ok for one in outcomes if one.arrived > 52.0)


def test_a_second_death_while_it_loads_begins_the_loading_anew() -> None:
    simulation, keeper, _ = restarting(standbys=2)
    simulation.clock.at(10.0, keeper.kill, "chat-g0-p0")
    simulation.clock.at(18.0, keeper.kill, "chat-g0-d1")
    simulation.run(30.0)
    assert not simulation.map("chat").groups
    simulation.run(31.5)
    (group,) = simulation.map("chat").groups
    assert [one.instance for one in group.decode] == ["chat-g0-d0", "s1"]
    assert keeper.restarts == 1
