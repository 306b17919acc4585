"""What one observer's view of the fleet says, asked briefly."""

from collections.abc import Collection

from shared.messages import Role
from shared.policy.placement import FleetView, ViewRules

BEAT = ViewRules().heartbeat_s


def rank(  # noqa: PLR0917
    view: FleetView, scenario: str, role: Role, now: float, group: str = "", exclude: Collection[str] = ()
) -> list[str]:
    """All candidates in the order in which they are asked."""
    asked: list[str] = []
    while (first := view.next(scenario, role, now, group, {*asked, *exclude})) is not None:
        asked.append(first.instance)
    return asked


def prefills(view: FleetView, now: float = 0.0, **others: object) -> list[str]:
    return rank(view, "chat", Role.PREFILL, now, **others)  # type: ignore[arg-type]
