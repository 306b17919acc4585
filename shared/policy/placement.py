"""Where a request may go: what maps, statuses, answers and silence say about each instance."""

from collections.abc import Collection
from dataclasses import dataclass

from shared.messages import Epoch, Role, ScenarioMap, Status


@dataclass(frozen=True, slots=True)
class ViewRules:
    """How silence is judged."""

    heartbeat_s: float = 0.5
    misses: int = 3  # so many beats missed: suspect; one more: lost
    penalty_s: float = 1.0  # for an unanswered offer; doubled by each further one, ended by an answer
    penalty_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Lost:
    """The instance (that incarnation of it) is gone with all it held."""

    instance: str
    epoch: Epoch
    reason: str


class FleetView:
    """One observer's view of the workers. Ranks candidates; says who was lost. Performs nothing."""

    def __init__(self, rules: ViewRules | None = None, watcher: str = "") -> None:
        raise NotImplementedError

    def see(self, message: Status | ScenarioMap, now: float) -> list[Lost]:
        """Take in a status or map (older epochs, numbers and versions are ignored); who was lost by it."""
        raise NotImplementedError

    def hear(self, now: float) -> None:
        """Something came over the bus (a Pulse): silence of others counts."""
        raise NotImplementedError

    def tick(self, now: float) -> list[Lost]:
        """Judge silence up to now; who was lost by it."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When `tick` should be called next."""
        raise NotImplementedError

    def best(self, scenario: str, role: Role, now: float, group: str = "", exclude: Collection[str] = ()) -> str | None:
        """The first of `rank` that has a free slot as far as is known; cheap at any fleet size."""
        raise NotImplementedError

    def rank(self, scenario: str, role: Role, now: float, group: str = "", exclude: Collection[str] = ()) -> list[str]:
        """Candidates, fewest streams first; those known to be full after them, suspects last, the lost never."""
        raise NotImplementedError

    def exists(self, scenario: str, role: Role, group: str = "") -> bool:
        """Whether any worker of the role is there to be asked, now or later."""
        raise NotImplementedError

    def current(self, instance: str, epoch: Epoch) -> bool:
        """False: the epoch is older than the instance's newest known; refuse what carries it (frames, answers)."""
        raise NotImplementedError

    def dispatched(self, instance: str) -> None:
        """An offer is under way: one more stream. Exactly one of the next three follows."""
        raise NotImplementedError

    def accepted(self, instance: str) -> None:
        """It holds a slot; `settled` follows."""
        raise NotImplementedError

    def rejected(self, instance: str) -> None:
        """It holds nothing and gets no further offer before its next status."""
        raise NotImplementedError

    def unanswered(self, instance: str, now: float) -> None:
        """No answer: suspect for a while."""
        raise NotImplementedError

    def settled(self, instance: str) -> None:
        """An accepted stream has left the instance (handed off, ended, failed)."""
        raise NotImplementedError
