"""The fluid counts what a group cannot do, and agrees with single requests."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from simulator.cluster.hurting import Hurting
from simulator.cluster.monitor import Monitor, MonitorSpec
from simulator.cluster.simulation import Simulation
from simulator.experiments.around import SECONDS, around
from simulator.experiments.fluid import Fluid
from simulator.experiments.month import Case, month
from simulator.faults.events import Died, Fault, Froze, Slowed
from tests.unit.simulator.cluster.fleets import PROFILE, fleet

LOADS = replace(PROFILE, load_s=20.0)


def hurt(prefill: int, decode: int, standbys: int, *faults: Fault) -> tuple[Fluid, Hurting]:
    simulation = Simulation(fleet(prefill, decode, profile=LOADS), lambda _: None)
    fluid = Fluid(simulation, 0.8)
    monitor = Monitor(simulation, MonitorSpec(standbys=standbys, host_answers=False))
    hurting = Hurting(simulation, monitor, iter(faults), fluid.touch)
    simulation.run(100.0)
    return fluid, hurting


def test_half_a_role_serves_half() -> None:
    """Ten seconds until the repair, a second to begin, 20 to load: of 0.8 that come, 0.5 are served."""
    fluid, hurting = hurt(2, 4, 0, Died(30.0, "chat-main-p0", 40.0))
    assert hurting.deaths == 1
    assert fluid.share() == pytest.approx((1 - 0.5 / 0.8) * 31.1 / 100, rel=0.01)


def test_a_substitute_is_there_sooner_than_a_repair() -> None:
    fluid, _ = hurt(2, 4, 1, Died(30.0, "chat-main-p0", 90.0))
    assert fluid.share() == pytest.approx((1 - 0.5 / 0.8) * 23.0 / 100, rel=0.03)


def test_one_of_many_is_not_missed() -> None:
    fluid, hurting = hurt(8, 8, 0, Died(30.0, "chat-main-d0", 90.0))
    assert hurting.deaths == 1
    assert fluid.share() == 0.0


def test_standing_still_and_slowness_count_while_they_last() -> None:
    fluid, hurting = hurt(
        2, 2, 0, Froze(10.0, "chat-main-p0", 11.0), Slowed(20.0, "chat-main-d0", 30.0, 2.0), Died(95.0, "nobody", 99.0)
    )
    assert (hurting.deaths, hurting.others) == (0, 2)
    assert fluid.share() == pytest.approx((1 - 0.5 / 0.8) / 100 + (1 - 0.75 / 0.8) * 10 / 100, rel=1e-3)


def test_one_that_is_down_cannot_be_hit_again() -> None:
    faults: Iterator[Fault] = iter(
        [Died(10.0, "chat-main-p0", 60.0), Died(20.0, "chat-main-p0", 99.0), Slowed(21.0, "chat-main-p0", 50.0, 3.0)]
    )
    _, hurting = hurt(2, 2, 0, *faults)
    assert (hurting.deaths, hurting.others) == (1, 0)


def test_a_month_loses_least_with_a_substitute_and_is_the_same_again() -> None:
    case = Case(300, 2)
    lost = {system: month(case, system, 1).lost for system in "abc"}
    assert 0 < lost["a"] < lost["b"] / 5
    assert lost["a"] < lost["c"] / 5
    assert month(case, "a", 1).lost == lost["a"]
    assert month(case, "a", 2).lost != lost["a"]


def test_without_standbys_waiting_is_the_same_system() -> None:
    case = Case(200, 0)
    assert month(case, "a", 3) == month(case, "c", 3)


@pytest.mark.long
def test_single_requests_lose_what_the_fluid_says() -> None:
    fault = Died(60.0, "chat-main-p0", SECONDS)
    told, predicted = around("a", fault, 5)
    assert told.begun == 0
    assert told.moved >= 1
    assert 0.6 * predicted < told.lost < 1.4 * predicted, "chance moves it: the group is nearly full"
    told, predicted = around("b", fault, 5)
    assert told.lost - told.begun == pytest.approx(predicted, rel=0.05)
    assert told.begun > 100
