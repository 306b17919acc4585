"""Scenarios whose groups are not all alike."""

from typing import Any

from shared.messages import Group, Member, ScenarioMap
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import DispatchRules, Offer
from shared.policy.placement import FleetView, ViewRules
from shared.policy.routes import RouteRules
from tests.unit.policy.builders import arrived, status

EPOCH = (1, 1)
PATIENT = ViewRules(heartbeat_s=1000.0)


def group(name: str, *names: str, waiting: tuple[str, ...] = (), **fields: Any) -> Group:
    """Names that begin with d are decodes; those in `waiting` have not joined."""
    members = {one: Member(one, EPOCH, joined=one not in waiting) for one in names}
    prefills = [member for one, member in members.items() if one[0] != "d"]
    decodes = [member for one, member in members.items() if one[0] == "d"]
    return Group(name, prefills, decodes, **fields)


def map_of(*groups: Group, version: int = 1) -> ScenarioMap:
    return ScenarioMap("chat", version, EPOCH, list(groups))


def view_over(*groups: Group, free: int = 4, slots: int = 4) -> FleetView:
    """A view in which all members are ready."""
    view = FleetView(PATIENT)
    view.see(map_of(*groups), 0.0)
    for one in groups:
        for member in (*one.prefill, *one.decode):
            view.see(status(member.instance, free=free, slots=slots, group=one.name), 0.0)
    return view


def dispatcher_over(
    *groups: Group, free: int = 4, routes: RouteRules | None = None, rules: DispatchRules | None = None
) -> Dispatcher:
    return Dispatcher(view_over(*groups, free=free), rules, {"chat": routes or RouteRules()})


def offer(dispatcher: Dispatcher, request_id: str, now: float = 0.0, **others: Any) -> Offer:
    """Let a request arrive that gets an offer at once."""
    (action,) = dispatcher.handle(arrived(request_id, **others), now)
    assert isinstance(action, Offer)
    return action


def offers(dispatcher: Dispatcher, count: int, **others: Any) -> list[Offer]:
    return [offer(dispatcher, f"r{number}", **others) for number in range(count)]
