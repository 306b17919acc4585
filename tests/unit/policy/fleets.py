"""Fleets that lead, heartbeats and links for them, and the actions that are expected of them."""

from shared.messages import Epoch, Group, GroupPhase, Link, Links, Member, Revision, Role, ScenarioMap
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    NOWHERE,
    Action,
    Assign,
    Cause,
    FleetRules,
    LeaderGained,
    LinksSeen,
    Place,
    Planned,
    PublishMap,
)
from shared.policy.plan import GroupPlan, Plan
from shared.policy.world import Tick
from tests.unit.policy.builders import seen

PREFILL = Place("chat", "main", Role.PREFILL)
DECODE = Place("chat", "main", Role.DECODE)
RULES = FleetRules(settle_s=5.0)
BEAT = RULES.heartbeat_s
MAIN = GroupPlan("main", 1, 1)
SECOND = GroupPlan("two", 1, 1)
TWO = {"group": "two"}
LEAD: Epoch = (1, 1)
FIRST = [Revision(0)]


def planned(*groups: GroupPlan, target: int = 0, revisions: tuple[Revision, ...] = ()) -> Plan:
    return Plan("chat", groups, revisions, target)


def sized(prefill: int = 1, decode: int = 1) -> Plan:
    """One group."""
    return planned(GroupPlan("main", prefill, decode))


def group(
    *names: str,
    plan: GroupPlan | None = None,
    phase: GroupPhase = GroupPhase.OPEN,
    waiting: tuple[str, ...] = (),
    **epochs: Epoch,
) -> Group:
    """A group of a map: names that begin with d are its decodes; those of `waiting` have not joined."""
    plan = plan or GroupPlan("main", 1, 1)
    prefill, decode = (
        [
            Member(name, epochs.get(name, (1, 1)), name not in waiting)
            for name in sorted((*names, *waiting))
            if (name[0] == "d") is decodes
        ]
        for decodes in (False, True)
    )
    return Group(
        plan.name, prefill, decode, phase, plan.prefill, plan.decode, plan.revision, plan.strategy, plan.canary
    )


def mapping(*groups: Group, version: int, leader: Epoch = LEAD) -> ScenarioMap:
    return ScenarioMap("chat", version, leader, list(groups), FIRST)


def published(
    *names: str, version: int, cause: Cause, leader: Epoch = LEAD, plan: GroupPlan | None = None, **epochs: Epoch
) -> PublishMap:
    """The map of one open group in which all have joined."""
    return PublishMap(mapping(group(*names, plan=plan, **epochs), version=version, leader=leader), cause)


def linked(prefill: str, *decodes: str, failing: tuple[str, ...] = (), **epochs: Epoch) -> LinksSeen:
    """The word of a prefill: these decodes it has reached, and those it has tried in vain."""
    links = [Link(name, epochs.get(name, (1, 1)), verified=True) for name in decodes]
    links += [Link(name, epochs.get(name, (1, 1)), problem="refused") for name in failing]
    return LinksSeen(Links(prefill, epochs.get(prefill, (1, 1)), links))


def link_all(fleet: Fleet, *names: str, now: float, **epochs: Epoch) -> list[Action]:
    """Every prefill of these reaches every decode of these."""
    prefills, decodes = ([name for name in names if name[0] == role] for role in "pd")
    return [action for name in prefills for action in fleet.handle(linked(name, *decodes, **epochs), now)]


def leading(*names: str, now: float = 0.0, prefill: int = 1, decode: int = 1, settled: bool = True) -> Fleet:
    """A fleet that leads, has heard all of these, and whose workers have reached each other."""
    return led(sized(prefill, decode), *names, now=now, settled=settled)


def led(
    plan: Plan, *names: str, now: float = 0.0, settled: bool = True, rules: FleetRules = RULES, **groups: str
) -> Fleet:
    """The same with a plan; the names of workers with their groups where these are not main."""
    fleet = Fleet([plan], rules)
    for name in names:
        fleet.handle(seen(name, group=groups.get(name, "main")), now)
    for where in {groups.get(name, "main") for name in names}:
        link_all(fleet, *(name for name in names if groups.get(name, "main") == where), now=now)
    fleet.handle(LeaderGained(LEAD), now)
    if settled:
        fleet._holes.elapse(now + rules.settle_s)
        fleet.handle(Tick(), now)
    return fleet


def plan(fleet: Fleet, *groups: GroupPlan, now: float) -> list[Action]:
    return fleet.handle(Planned(planned(*groups), "a test"), now)


def beat(fleet: Fleet, *names: str, now: float, **others: object) -> list[Action]:
    return [action for name in names for action in fleet.handle(seen(name, **others), now)]  # type: ignore[arg-type]


def assigned(instance: str, place: Place, cause: Cause, revision: int = 0) -> Assign:
    return Assign(instance, place.role, place.scenario, place.group, cause, Revision(revision))


def sent_home(instance: str) -> Assign:
    return assigned(instance, NOWHERE, Cause.SURPLUS)


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def phases(fleet: Fleet) -> dict[str, GroupPhase]:
    found = fleet.map("chat")
    assert found is not None
    return {one.name: one.phase for one in found.groups}


def second_place(role: Role) -> Place:
    return Place("chat", "two", role)


def two_groups(*others: str) -> Fleet:
    """Both open: p1 and d1 in main, p2 and d2 in two."""
    return led(planned(MAIN, SECOND), "p1", "d1", "p2", "d2", *others, p2="two", d2="two")
