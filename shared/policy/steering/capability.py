"""What one prefill and one decode can do at most, learnt while they do less: P/D-Serve 1.2, b_p/T_p and b_d/T_d.

Both engines take the time y(b) = c + a/b per unit of work when b requests are in their slots. A prefill that computes
one prompt after another has a = 0: it does as much per busy second at any load. A decode whose step takes as long
however many sequences are in it has c = 0. What is true lies between, and shows in how y moves with b.

Owns that line, per kind of engine: the shape is learnt over a long time, its height is what was measured last. Where b
has hardly moved, the shape is taken from the prior, and the prior errs to the safe side: a prefill is believed to do
no more than it was seen to do, and a decode's step to grow no further, so that its use is the share of its batch that
is filled. At a full batch both are exact whatever the shape, and below `busy` nothing is decided by them.
"""

from dataclasses import dataclass
from typing import Final

RIDGE: Final = 0.05
"""Spread of x, relative to its mean, at which the prior and the measured slope weigh alike."""
FORGET_S: Final = 600.0
"""After so long a point weighs 1/e."""


@dataclass(slots=True)
class Line:
    """A weighted line y = c + m*x through points, m pulled towards 0; c and m are never negative. Forgets slowly."""

    weight: float = 0.0
    x: float = 0.0  # means
    y: float = 0.0
    xx: float = 0.0  # of the products of what is beside the means
    xy: float = 0.0
    at: float = 0.0

    def add(self, x: float, y: float, weight: float, now: float) -> None:
        """Take a point in."""
        keep = max(0.0, 1.0 - max(0.0, now - self.at) / FORGET_S) if self.weight else 0.0
        self.at = max(self.at, now)
        old = self.weight * keep
        self.weight = old + weight
        part = weight / self.weight
        dx, dy = x - self.x, y - self.y
        self.xx = (1.0 - part) * (self.xx + part * dx * dx)
        self.xy = (1.0 - part) * (self.xy + part * dx * dy)
        self.x += part * dx
        self.y += part * dy

    @property
    def slope(self) -> float:
        """m, between 0 and that of the line through the origin."""
        if not self.weight or self.x <= 0.0:
            return 0.0
        pulled = self.xy / (self.xx + (RIDGE * self.x) ** 2)
        return min(max(0.0, pulled), self.y / self.x)

    def grows(self, x: float, to: float) -> float:
        """Return y(to) / y(x); 1 where nothing is known."""
        slope = self.slope
        height = self.y - slope * self.x
        below = height + slope * x
        return (height + slope * to) / below if below > 0.0 else 1.0


class PromptTime:
    """Busy time per prompt token of a prefill, over 1/b: work-conserving unless it was seen to be otherwise."""

    def __init__(self) -> None:
        self._line = Line()

    def add(self, slots: float, seconds: float, weight: float, now: float) -> None:
        """Take in how long a token took with so many prompts in slots, on average."""
        self._line.add(1.0 / slots, seconds, weight, now)

    def gain(self, slots: float, full: float) -> float:
        """How much more is done per busy second with all slots taken; never below 1."""
        if full <= slots:
            return 1.0
        return max(1.0, 1.0 / max(slots / full, self._line.grows(1.0 / slots, 1.0 / full)))


class StepTime:
    """Time of a decode's step over b, the sequences in it: constant unless it was seen to grow."""

    def __init__(self) -> None:
        self._line = Line()

    def add(self, batch: float, seconds: float, weight: float, now: float) -> None:
        """Take in how long a step took with so many sequences, on average."""
        self._line.add(batch, seconds, weight, now)

    def grows(self, batch: float, full: float) -> float:
        """How much longer a step takes with the batch full; never below 1, nor above what b itself grows."""
        if full <= batch:
            return 1.0
        return min(max(1.0, self._line.grows(batch, full)), full / batch)
