"""What can break. Pure data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """At that second, to that instance; over at `until`, when it is repaired or replaced."""

    at: float
    instance: str
    until: float


class Died(Fault):
    """A device is gone, and the instance with it."""


class Froze(Fault):
    """Nothing runs, but the sockets stay."""


class Cut(Fault):
    """Runs, but nobody reaches it: its rack's switch is down."""


@dataclass(frozen=True, slots=True)
class Slowed(Fault):
    """Computes so many times slower."""

    factor: float


@dataclass(frozen=True, slots=True)
class Degraded(Fault):
    """Its link is so many times slower."""

    factor: float
