"""Keeps every group at its wanted size: removes who is lost, then puts one substitute in its place."""

from collections.abc import Mapping

from shared.messages import ScenarioMap
from shared.policy.fleet_events import Action, Event, FleetRules, Place


class Fleet:
    """The monitor's decider. Observes always, acts only while leader. Performs nothing."""

    def __init__(self, wanted: Mapping[Place, int], rules: FleetRules | None = None) -> None:
        raise NotImplementedError

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do, in this order, because of the event."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When a Tick is due at the latest; ask again after each event."""
        raise NotImplementedError

    def map(self, scenario: str) -> ScenarioMap | None:
        """The scenario's map as decided last."""
        raise NotImplementedError
