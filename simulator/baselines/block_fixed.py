"""KV sent as blocks of a fixed size, one after another, each confirmed before the next (P/D-Serve 1.12, Figure 14a)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from simulator.clock import Clock
from simulator.network import Network


@dataclass(frozen=True, slots=True)
class Blocks:
    """A round trip for each block; with several `layers`, each block counts once per layer."""

    nbytes: int  # of one block, all layers
    confirm_s: float
    layers: int = 1

    def waits_s(self, nbytes: int) -> float:
        """Seconds in which the wire is idle for confirmations."""
        return ceil(nbytes / self.nbytes) * self.layers * self.confirm_s


class BlockFixed:
    """A Network over another. The waits are added at the end: the wire is held as long as contiguous bytes would."""

    def __init__(self, clock: Clock, inner: Network, blocks: Blocks) -> None:
        self._clock, self._inner, self._blocks = clock, inner, blocks

    def place(self, instance: str) -> None:
        """See Network."""
        self._inner.place(instance)

    def send(self, source: str, target: str, nbytes: int, done: Callable[[], None]) -> None:
        """See Network."""
        self._inner.send(source, target, nbytes, lambda: self._clock.after(self._blocks.waits_s(nbytes), done))
