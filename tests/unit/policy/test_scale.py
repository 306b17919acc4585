"""An event costs about the same whether ten or ten thousand instances and requests are there.

Counted in executed lines, not in seconds: the same on every machine.
"""

from collections.abc import Iterator
from itertools import count

import pytest

from shared.messages import Group, Link, Links, Member, Role, ScenarioMap
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import DispatchRules, Ended, FirstToken, HandedOff, Offer, OfferAccepted
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import Cause, LeaderGained, LinksSeen, Place, PublishMap
from shared.policy.placement import FleetView
from shared.policy.plan import GroupPlan, Plan
from shared.policy.world import MapSeen, Tick
from simulator.measures.lines import lines
from tests.unit.policy.builders import arrived, seen

FEW, MANY = 20, 10_000
PER_GROUP = 10


def fleet_map(instances: int) -> ScenarioMap:
    """Half prefills, half decodes, in groups of ten."""
    groups = [
        Group(
            f"g{first}",
            [Member(f"p{number}", (1, 1)) for number in range(first, first + PER_GROUP // 2)],
            [Member(f"d{number}", (1, 1)) for number in range(first, first + PER_GROUP // 2)],
        )
        for first in range(0, instances // 2, PER_GROUP // 2)
    ]
    return ScenarioMap("chat", 1, (1, 1), groups)


def names(instances: int) -> Iterator[tuple[str, str]]:
    for group in fleet_map(instances).groups:
        for member in (*group.prefill, *group.decode):
            yield member.instance, group.name


def crowded(size: int) -> Dispatcher:
    """As many instances as open requests; half of these stream, half wait."""
    dispatcher = Dispatcher(FleetView(), DispatchRules(max_waiting=size, max_open=10 * size))
    dispatcher.handle(MapSeen(fleet_map(size)), 0.0)
    for name, group in names(size):
        dispatcher.handle(seen(name, 1, group=group), 0.0)
    for number in range(size):
        whose = {"tenant": f"t{number % max(1, size // 20)}", "priority": number % 3}
        for action in dispatcher.handle(arrived(f"r{number}", **whose), 0.0):  # type: ignore[arg-type]
            assert isinstance(action, Offer)
            dispatcher.handle(OfferAccepted(action.request_id, action.attempt, action.instance), 0.0)
            dispatcher.handle(FirstToken(action.request_id, action.attempt), 0.0)
            dispatcher.handle(HandedOff(action.request_id, action.attempt, "d" + action.instance[1:]), 0.0)
    assert dispatcher.open == size
    assert dispatcher.waiting("chat") == size - size // 2
    return dispatcher


def relay(dispatcher: Dispatcher, rounds: int) -> int:
    """Statuses, draws, streams that end and arrivals; the lines of one round on average."""
    numbers = count(1_000_000)
    groups = dict(names(2 * PER_GROUP))

    def work() -> None:
        for turn in range(rounds):
            name = f"p{turn % PER_GROUP}"
            drawn = dispatcher.handle(seen(name, 1, group=groups[name]), 0.1)
            dispatcher.handle(arrived(f"r{next(numbers)}"), 0.1)
            for action in drawn:
                assert isinstance(action, Offer)
                key = (action.request_id, action.attempt)
                dispatcher.handle(OfferAccepted(*key, action.instance), 0.1)
                dispatcher.handle(FirstToken(*key), 0.1)
                dispatcher.handle(HandedOff(*key, "d0"), 0.1)
                dispatcher.handle(Ended(*key), 0.1)
            dispatcher.handle(Tick(), 0.1)
            dispatcher.next_deadline()

    return lines(work) // rounds


def test_a_round_of_the_dispatcher_costs_the_same_at_ten_thousand() -> None:
    assert relay(crowded(MANY), 200) <= 1.5 * relay(crowded(FEW), 200) + 100


def led(size: int) -> Fleet:
    """A leader whose groups are complete."""
    groups = fleet_map(size).groups
    half = PER_GROUP // 2
    fleet = Fleet([Plan("chat", tuple(GroupPlan(group.name, half, half) for group in groups))])
    for name, group in names(size):
        fleet.handle(seen(name, group=group), 0.0)
    for one_group in groups:
        links = [Link(one.instance, one.epoch, verified=True) for one in one_group.decode]
        for one in one_group.prefill:
            fleet.handle(LinksSeen(Links(one.instance, one.epoch, links)), 0.0)
    actions = fleet.handle(LeaderGained((1, 1)), 0.0)
    assert [type(action) for action in actions] == [PublishMap]
    assert all(member.joined for _, member in fleet.members("chat"))
    return fleet


@pytest.mark.parametrize("holes", [False, True])
def test_a_heartbeat_costs_the_monitor_the_same_at_ten_thousand(*, holes: bool) -> None:
    costs = []
    for size in (FEW, MANY):
        fleet = led(size)
        if holes:  # every other instance is gone, and there is no standby
            for name, group in list(names(size))[::2]:
                fleet._census.forget(name)
                fleet._groups.leave(name, Cause.SILENT)
                fleet._holes.owe(Place("chat", group, Role.PREFILL if name[0] == "p" else Role.DECODE), Cause.SILENT)
            fleet.handle(Tick(), 0.0)
        beats = [seen(name, group=group) for name, group in list(names(size))[1:20:2]]
        costs.append(lines(lambda: [fleet.handle(beat, 0.1) for beat in beats]))  # noqa: B023
    assert costs[1] <= 1.5 * costs[0] + 100


def test_the_word_of_a_prefill_costs_the_monitor_the_same_at_ten_thousand() -> None:
    costs = []
    for size in (FEW, MANY):
        fleet, group = led(size), fleet_map(size).groups[0]
        links = [Link(one.instance, one.epoch, verified=True) for one in group.decode]
        words = [LinksSeen(Links(one.instance, one.epoch, links)) for one in group.prefill]
        costs.append(lines(lambda: [fleet.handle(word, 0.1) for word in words]))  # noqa: B023
    assert costs[1] <= 1.5 * costs[0] + 100
