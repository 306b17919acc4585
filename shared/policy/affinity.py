"""Where the beginnings of prompts were computed lately: which prefill may have them in its cache.

Owns the memory, learnt from where prompts were accepted. What it says is a guess, and changes only where a prompt goes.
A prefix is a tuple of chained hashes: the k-th stands for all tokens up to the k-th boundary.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from shared.messages import Epoch
from shared.policy.recent import Recent

BLOCK: Final = 64
"""Tokens up to the first boundary, and between those that are close."""
CLOSE: Final = 16
"""Boundaries so far apart; behind them each lies twice as far as the one before."""
MOST: Final = 24
"""Boundaries of one prompt: the last one lies behind a quarter of a million tokens."""
REMEMBERED: Final = 65_536
"""Beginnings, over all scenarios."""
HOLDERS: Final = 4
"""Of one beginning: those that computed it last."""

Holders = tuple[tuple[str, Epoch | None], ...]


class Known(NamedTuple):
    """An instance that has had a prompt's beginning."""

    instance: str
    tokens: int


def boundary(place: int) -> int:
    """Count the tokens that the hash at a place of a prefix stands for."""
    return BLOCK * (place + 1) if place < CLOSE else BLOCK * CLOSE << (place - CLOSE + 1)


class Affinity:
    """A bounded memory of beginnings; what was not met for longest is forgotten first."""

    def __init__(self, epoch: Callable[[str], Epoch | None]) -> None:
        self._epoch = epoch  # of an instance: a new incarnation has an empty cache
        self._holders: Recent[tuple[str, int], Holders] = Recent(REMEMBERED)

    def learn(self, scenario: str, prefix: tuple[int, ...], instance: str) -> None:
        """Note that an instance has taken a prompt on."""
        holder = (instance, self._epoch(instance))
        for mark in prefix:
            before = self._holders.get((scenario, mark)) or ()
            if not before or before[0] != holder:
                before = (holder, *(one for one in before if one[0] != instance))[:HOLDERS]
            self._holders.put((scenario, mark), before)

    def known(self, scenario: str, prefix: tuple[int, ...]) -> Iterator[Known]:
        """Name the holders, of the longest beginning first, each once."""
        met: set[str] = set()
        for place in range(len(prefix) - 1, -1, -1):
            for instance, epoch in self._holders.get((scenario, prefix[place])) or ():
                if instance not in met and epoch == self._epoch(instance):
                    met.add(instance)
                    yield Known(instance, boundary(place))
