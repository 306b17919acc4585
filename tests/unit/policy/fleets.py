"""Fleets that lead, heartbeats for them, and the actions that are expected of them."""

from shared.messages import Epoch, Role
from shared.policy.fleet import Fleet
from shared.policy.fleet_events import (
    Action,
    Assign,
    Cause,
    FleetRules,
    LeaderGained,
    Place,
    PublishMap,
)
from shared.policy.world import Tick
from tests.unit.policy.builders import scenario_map, seen

PREFILL = Place("chat", "main", Role.PREFILL)
DECODE = Place("chat", "main", Role.DECODE)
RULES = FleetRules(settle_s=5.0)
BEAT = RULES.heartbeat_s
LEAD: Epoch = (1, 1)


def published(*names: str, version: int, cause: Cause, leader: Epoch = LEAD, **epochs: Epoch) -> PublishMap:
    return PublishMap(scenario_map(*names, version=version, leader=leader, epochs=epochs), cause)


def leading(*names: str, now: float = 0.0, prefill: int = 1, decode: int = 1, settled: bool = True) -> Fleet:
    """A fleet that leads and has heard all of these."""
    fleet = Fleet({PREFILL: prefill, DECODE: decode}, RULES)
    for name in names:
        fleet.handle(seen(name), now)
    fleet.handle(LeaderGained(LEAD), now)
    if settled:
        fleet._holes.elapse(now + RULES.settle_s)
        fleet.handle(Tick(), now)
    return fleet


def beat(fleet: Fleet, *names: str, now: float) -> list[Action]:
    return [action for name in names for action in fleet.handle(seen(name), now)]


def assigned(standby: str, place: Place, cause: Cause) -> Assign:
    return Assign(standby, place.role, place.scenario, place.group, cause)
