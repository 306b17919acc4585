"""Every transfer has a link for itself: for fleets so large that the network is not the question."""

from collections.abc import Callable
from typing import Final

from simulator.clock import Clock

EXCHANGE_S: Final = 0.0005
"""One exchange of metadata before, one acknowledgement after, of a transfer."""


class Straight:
    """Bytes at a fixed rate, after a fixed wait."""

    def __init__(self, clock: Clock, bytes_per_s: float, latency_s: float = EXCHANGE_S) -> None:
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._latency_s = latency_s
        self.nbytes = 0

    def place(self, instance: str) -> None:
        """See Network."""

    def send(self, source: str, target: str, nbytes: int, done: Callable[[], None]) -> None:  # noqa: ARG002
        """See Network."""
        self.nbytes += nbytes
        self._clock.after(self._latency_s + nbytes / self._bytes_per_s, done)
