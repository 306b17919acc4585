"""How values are spread: kept as they come, eight bytes each, and put in order when somebody asks. Exact."""

from array import array
from collections.abc import Iterable
from itertools import chain
from math import ceil, nan
from typing import Final, Self

TENTHS: Final = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0)
"""The percentiles over which two distributions are compared."""


class Distribution:
    """Values in any order. Percentiles are those of the nearest rank: the smallest value that p % do not exceed."""

    __slots__ = ("_ordered", "add", "values")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = array("d", values)
        self._ordered = array("d")
        self.add = self.values.append  # bound once: it is called for every request

    @classmethod
    def of(cls, several: Iterable[Self]) -> Self:
        """All their values together."""
        return cls(chain.from_iterable(one.values for one in several))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN where there is no value."""
        return sum(self.values) / len(self.values) if self.values else nan

    @property
    def ordered(self) -> "array[float]":
        """From the smallest up. Not to be changed."""
        if len(self._ordered) != len(self.values):  # nothing is ever taken out, so their number tells
            self._ordered = array("d", sorted(self.values))
        return self._ordered

    def percentile(self, p: float) -> float:
        """Where p is in (0, 100]; NaN where there is no value."""
        if not 0.0 < p <= 100.0:  # noqa: PLR2004
            raise ValueError(f"a percentile lies in (0, 100], not at {p}")
        ordered = self.ordered
        return ordered[max(0, ceil(p / 100.0 * len(ordered) - 1e-9) - 1)] if ordered else nan

    def share_within(self, limit: float) -> float:
        """Share of the values that do not exceed it; NaN where there is none."""
        if not self.values:
            return nan
        return sum(1 for value in self.values if value <= limit) / len(self.values)

    def distance(self, other: "Distribution") -> float:
        """Largest difference of a percentile (`TENTHS`), as a share of the other's, which is the measured one.

        Infinite where only one of them has values, or where the other's percentile is 0 and this one's is not.
        """
        if not len(self) or not len(other):
            return 0.0 if len(self) == len(other) else float("inf")
        return max(_apart(self.percentile(p), other.percentile(p)) for p in TENTHS)

    def area(self, other: "Distribution") -> float:
        """Area between both curves of percentiles, as a share of the other's mean: Wasserstein's distance of order 1.

        0 where they are alike; NaN where one of them has no value.
        """
        ours, theirs = self.ordered, other.ordered
        n, m = len(ours), len(theirs)
        if not n or not m:
            return nan
        i = j = at = 0  # in parts of n*m, so that no end of a step is missed for a rounding
        total = 0.0
        while i < n and j < m:
            end = min((i + 1) * m, (j + 1) * n)
            total += (end - at) * abs(ours[i] - theirs[j])
            at = end
            i += end == (i + 1) * m
            j += end == (j + 1) * n
        return total / (n * m) / other.mean


def _apart(value: float, measured: float) -> float:
    if value == measured:
        return 0.0
    return abs(value - measured) / abs(measured) if measured else float("inf")
