"""What one observer's view of the fleet says, asked briefly."""

from shared.messages import Role
from shared.policy.placement import FleetView, ViewRules

BEAT = ViewRules().heartbeat_s


def prefills(view: FleetView, now: float = 0.0, **others: object) -> list[str]:
    return view.rank("chat", Role.PREFILL, now, **others)  # type: ignore[arg-type]
