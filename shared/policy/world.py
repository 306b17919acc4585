"""What every decider hears of the world outside: statuses, maps, pulses, the bus, time."""

from msgspec import Struct

from shared.messages import ScenarioMap, Status


class StatusSeen(Struct, frozen=True):
    """An instance said how it is."""

    status: Status


class MapSeen(Struct, frozen=True):
    """The monitor announced a scenario's members, or the map was read from Redis."""

    map: ScenarioMap


class PulseSeen(Struct, frozen=True):
    """Somebody was heard on the bus (a Pulse, our own loop-back): whoever is silent now is so by itself."""


class NobodyThere(Struct, frozen=True):
    """NATS says that nobody listens on the instance's own presence subject, asked just now."""

    instance: str


class BusDown(Struct, frozen=True):
    """Our connection to NATS is lost: nothing can be offered, and nobody's silence means anything."""


class BusUp(Struct, frozen=True):
    """Our connection to NATS is back."""


class Tick(Struct, frozen=True):
    """Time has passed; due at `next_deadline()`, harmless at any other time."""
