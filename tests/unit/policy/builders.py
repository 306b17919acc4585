"""Statuses, maps and events with every irrelevant field filled in."""

from itertools import count
from math import inf

from shared.messages import Epoch, Group, Member, Role, ScenarioMap, State, Status
from shared.policy.dispatch_events import Arrived
from shared.policy.placement import FleetView, ViewRules
from shared.policy.world import MapSeen, StatusSeen

NUMBERS = count(1)


def status(
    instance: str,
    *,
    free: int = 1,
    slots: int | None = None,
    state: State = State.READY,
    role: Role | None = None,
    epoch: Epoch = (1, 1),
    number: int | None = None,
    scenario: str = "chat",
    group: str = "main",
    busy: bool = False,
    steps: int = 0,
    kv_free_bytes: int = 0,
) -> Status:
    """A heartbeat. Names that begin with d are decodes, with s standbys, all others prefills."""
    if role is None:
        role = {"d": Role.DECODE, "s": Role.STANDBY}.get(instance[0], Role.PREFILL)
    return Status(
        instance=instance,
        epoch=epoch,
        role=role,
        state=state,
        scenario="" if role is Role.STANDBY else scenario,
        group="" if role is Role.STANDBY else group,
        slots=max(free, 1) if slots is None else slots,
        free=free,
        steps=steps,
        busy=busy,
        kv_free_bytes=kv_free_bytes,
        number=next(NUMBERS) if number is None else number,
    )


def members(names: tuple[str, ...], epochs: dict[str, Epoch]) -> list[Member]:
    return [Member(name, epochs.get(name, (1, 1))) for name in names]


def scenario_map(
    *names: str,
    version: int = 1,
    leader: Epoch = (1, 1),
    scenario: str = "chat",
    group: str = "main",
    epochs: dict[str, Epoch] | None = None,
) -> ScenarioMap:
    """A map with one group; names that begin with d are its decodes."""
    prefills = members(tuple(name for name in names if name[0] != "d"), epochs or {})
    decodes = members(tuple(name for name in names if name[0] == "d"), epochs or {})
    return ScenarioMap(scenario, version, leader, [Group(group, prefills, decodes)])


def arrived(
    request_id: str,
    *,
    deadline: float = 100.0,
    expires: float = 1000.0,
    priority: int = 0,
    scenario: str = "chat",
    tokens: int = 8,
    tenant: str = "",
    weight: float = 1.0,
    wait_by: float = inf,
    attempt: int = -1,
    begun: bool = False,
    prefix: tuple[int, ...] = (),
) -> Arrived:
    whose = (priority, tenant, weight, wait_by)
    return Arrived(request_id, scenario, tokens, deadline, expires, *whose, attempt, begun, prefix)


def seen(instance: str, free: int = 1, **others: object) -> StatusSeen:
    return StatusSeen(status(instance, free=free, **others))  # type: ignore[arg-type]


def mapped(*names: str, **others: object) -> MapSeen:
    return MapSeen(scenario_map(*names, **others))  # type: ignore[arg-type]


def view_of(*names: str, now: float = 0.0, free: int = 1, rules: ViewRules | None = None) -> FleetView:
    """A view in which all these workers are in the map and ready."""
    view = FleetView(rules)
    view.see(scenario_map(*names), now)
    for name in names:
        view.see(status(name, free=free), now)
    return view
