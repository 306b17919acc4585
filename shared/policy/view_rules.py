"""How an observer judges silence, and what it says of those that are lost."""

from dataclasses import dataclass, field
from typing import Final

from shared.messages import Epoch
from shared.policy.probing import ProbeRules

EPOCHS_REMEMBERED: Final = 65_536
"""Instances whose highest epoch is kept after they are gone, so that a zombie stays refused."""
NEVER: Final[Epoch] = (0, 0)
"""Of one that nobody has heard of by its epoch: any is newer."""


@dataclass(frozen=True, slots=True)
class ViewRules:
    """How silence is judged."""

    heartbeat_s: float = 0.5
    misses: int = 3  # so many beats missed: suspect; one more: lost
    penalty_s: float = 1.0  # for an unanswered offer; doubled by each further one, ended by an answer
    penalty_max_s: float = 30.0
    probes: ProbeRules = field(default_factory=ProbeRules)


@dataclass(frozen=True, slots=True)
class Lost:
    """That incarnation of the instance is gone with all it held; nothing is to be settled with it any more."""

    instance: str
    epoch: Epoch
    reason: str
    died: bool = True  # its process, for certain; False: it stopped in order, or is out of sight
