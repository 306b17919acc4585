"""What steering goes by in one scenario. The names are those of the configuration; docs/configuration.md explains them.

Policies do not read the configuration: the monitor copies it over.
"""

from dataclasses import dataclass, field
from typing import Final

MAIN: Final = "main"
"""The group that a scenario has if nothing else is said; further ones are main-2, main-3, ..."""


@dataclass(frozen=True, slots=True)
class RatioRules:
    """How the number of prefills to decodes in a group follows what is measured."""

    mode: str = "auto"  # auto, explain, fixed
    window_s: float = 30.0
    gain: float = 0.1
    hold_s: float = 20.0
    rest_s: float = 60.0
    busy: float = 0.5
    least: int = 2  # of each role of a scenario, where the group has four members or more


@dataclass(frozen=True, slots=True)
class ScaleRules:
    """How many groups there are, by the clock and by the load."""

    least: int = 1
    most: int = 0  # 0: the load changes nothing
    timetable: tuple[str, ...] = ()
    timezone: str = "UTC"
    target: float = 0.7
    slack: float = 0.2
    up_s: float = 15.0
    down_s: float = 300.0


@dataclass(frozen=True, slots=True)
class UpgradeRules:
    """When a step of an upgrade counts as failed."""

    settle_s: float = 900.0  # for a step's instances to load and join; past it the upgrade goes back
    margin: float = 0.02  # share of failures, or of misses of an objective, that a canary may have above the others
    enough: int = 20  # requests before a canary is judged by its share


@dataclass(frozen=True, slots=True)
class SteeringRules:
    """All of one scenario."""

    scenario: str
    prefill: int = 1  # of a group that is new
    decode: int = 1
    groups: int = 1
    named: frozenset[str] = frozenset()  # groups of the configuration with a name; scaling leaves them alone
    ratio: RatioRules = field(default_factory=RatioRules)
    scale: ScaleRules = field(default_factory=ScaleRules)
    upgrade: UpgradeRules = field(default_factory=UpgradeRules)
