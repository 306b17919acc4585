"""What the dashboard is given, and what it asks for. Every part may be missing: the page then shows less."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.config import ScenarioSettings
from shared.messages import (
    ExplainOrder,
    Happening,
    Links,
    Rejected,
    ScaleOrder,
    Status,
    Told,
    Traffic,
    UpgradeOrder,
)


@dataclass(frozen=True, slots=True)
class Advice:
    """What the controller measures in one scenario, and what it wants. Zero or empty: not known."""

    mode: str = ""  # of the ratio: auto, explain, fixed
    prefill: int = 0  # members it wants in all groups together
    decode: int = 0
    scarcer: str = ""  # the role that bounds the throughput: prefill, decode
    prefill_per_s: float = 0.0  # n_p·b_p/T_p, requests per second that the prefills are capable of
    decode_per_s: float = 0.0  # n_d·b_d/T_d
    phi: float = 0.0  # requests per second and instance, P/D-Serve 1.2
    prefill_s: float = 0.0  # T_p
    decode_s: float = 0.0  # T_d
    groups: int = 0  # that it wants
    upgrade: str = ""  # what a running upgrade does now; empty: none runs
    reasons: tuple[str, ...] = ()  # why it does what it does, or why it does nothing


@dataclass(frozen=True, slots=True)
class Figures:
    """What the monitor knows beyond its report, as it is now."""

    statuses: Mapping[str, Status] = field(default_factory=dict)  # what each instance said last
    links: Mapping[str, Links] = field(default_factory=dict)  # what each prefill said last
    traffic: Sequence[Traffic] = ()  # what each gateway said last of each scenario
    scenarios: Mapping[str, ScenarioSettings] = field(default_factory=dict)
    steering: Mapping[str, Advice] = field(default_factory=dict)  # by scenario


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Let one instance finish what it holds and leave; whoever is missed then is replaced from standby."""

    instance: str


Order = ScaleOrder | UpgradeOrder | ExplainOrder | DrainOrder
PlaceOrder = Callable[[Order], Awaitable[Told | Rejected]]
"""Gives an order to the leading monitor. May raise BatonError: nobody leads, or it does not answer."""
SeeFigures = Callable[[], Figures]
SeeHappenings = Callable[[], Sequence[Happening]]
"""Returns the last happenings, oldest first, a bounded number."""
