"""What every decider hears of the world outside: statuses, maps, pulses, the bus, time."""

from dataclasses import dataclass

from shared.messages import ScenarioMap, Status


@dataclass(frozen=True, slots=True)
class StatusSeen:
    """An instance said how it is."""

    status: Status


@dataclass(frozen=True, slots=True)
class MapSeen:
    """The monitor announced a scenario's members, or the map was read from Redis."""

    map: ScenarioMap


@dataclass(frozen=True, slots=True)
class PulseSeen:
    """Somebody was heard on the bus (a Pulse, our own loop-back): whoever is silent now is so by itself."""


@dataclass(frozen=True, slots=True)
class NobodyThere:
    """NATS says that nobody listens on the instance's own presence subject, asked just now."""

    instance: str


@dataclass(frozen=True, slots=True)
class BusDown:
    """Our connection to NATS is lost: nothing can be offered, and nobody's silence means anything."""


@dataclass(frozen=True, slots=True)
class BusUp:
    """Our connection to NATS is back."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due at `next_deadline()`, harmless at any other time."""
