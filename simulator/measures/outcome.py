"""What became of one request, as its client sees it."""

from msgspec import Struct

from shared.errors import Code
from simulator.workload.arrival import Arrival


class Outcome(Struct):
    """A request from its arrival to its one ending. Times are simulated seconds."""

    arrival: Arrival
    arrived: float  # at the gateway; a closed loop's clients send when they can, not when the workload says
    first: float | None = None  # the first token at the gateway
    ended: float = 0.0
    tokens: int = 0  # delivered
    code: Code | None = None  # of a bad ending
    offers: int = 0  # that were sent for it
    attempts: int = 0  # that a worker took on
    cached: int = 0  # prompt tokens found in the last prefill's cache
    prefill: str = ""  # the last one that took it on
    decode: str = ""
    prefilled: float = 0.0  # seconds from the last acceptance to its first token: T_p
    moved: float = 0.0  # seconds from there until the decode had its KV: xi

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.code is None

    @property
    def ttft(self) -> float | None:
        """Seconds to the first token."""
        return None if self.first is None else self.first - self.arrived

    @property
    def tpot(self) -> float | None:
        """Seconds per token after the first; None for one token, or where it broke off."""
        if self.first is None or self.tokens < 2:  # noqa: PLR2004
            return None
        return (self.ended - self.first) / (self.tokens - 1)

    @property
    def e2e(self) -> float:
        """Seconds until it was over."""
        return self.ended - self.arrived

    def meets(self, ttft: float, tpot: float) -> bool:
        """Whether it ended well and within both objectives, in seconds."""
        if self.code is not None or self.first is None or self.first - self.arrived > ttft:
            return False
        pace = self.tpot
        return pace is None or pace <= tpot
