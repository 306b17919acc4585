"""How long until a fault is noticed, by Baton's own rules. Upper bounds, without the time of messages. Pure."""

from dataclasses import dataclass
from math import inf

from simulator.faults.events import Cut, Died, Fault, Froze, Slowed


@dataclass(frozen=True, slots=True)
class Detection:
    """Settings of the same names: fleet.lease_ttl_s, fleet.heartbeat_s, fleet.heartbeat_misses, fleet.progress_s."""

    lease_ttl_s: float
    heartbeat_s: float
    misses: int
    progress_s: float

    @property
    def suspected_s(self) -> float:
        """So many beats are missing. The last one may have come just before."""
        return self.heartbeat_s * self.misses

    @property
    def lost_s(self) -> float:
        """One more is missing."""
        return self.heartbeat_s * (self.misses + 1)

    def noticed_s(self, fault: Fault, token_s: float = 0.0, host_answers: bool = False) -> float:  # noqa: FBT001, FBT002
        """Seconds from the fault; infinite where no rule notices. `token_s`: between tokens before the fault.

        A dead process on a living host refuses connections at once. Silence is noticed by whichever of beats, lease and
        progress comes first, if it lasts so long. Slowness shows only where a token takes longer than progress_s.
        """
        if isinstance(fault, Died) and host_answers:
            return 0.0
        if isinstance(fault, Died | Froze | Cut):
            silence = min(self.lost_s, self.lease_ttl_s, self.progress_s)
            return silence if isinstance(fault, Died) or fault.until - fault.at >= silence else inf
        if isinstance(fault, Slowed) and fault.factor * token_s > self.progress_s <= fault.until - fault.at:
            return self.progress_s
        return inf
