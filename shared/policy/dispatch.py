"""Chooses the prefill of each request at a gateway and sees every request to its one ending."""

from shared.policy.dispatch_events import Action, DispatchRules, Event
from shared.policy.placement import FleetView


class Dispatcher:
    """A state machine per request. Owns the view of the fleet; performs nothing."""

    def __init__(self, view: FleetView, rules: DispatchRules | None = None) -> None:
        raise NotImplementedError

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do, in this order, because of the event."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When a Tick is due at the latest; ask again after each event."""
        raise NotImplementedError

    def waiting(self, scenario: str) -> int:
        """Requests without a slot."""
        raise NotImplementedError

    @property
    def open(self) -> int:
        """Requests not yet ended."""
        raise NotImplementedError
