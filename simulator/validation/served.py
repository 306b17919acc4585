"""What a load's requests took, in real runs or in simulated ones; and how far apart the two are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Self

from simulator.measures.distribution import TENTHS, Distribution
from simulator.validation.loads import Load


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's times in ms, from when it was sent, which was `late_ms` after it was due.

    None: it was refused, or broke off. Of a single token there is no TPOT.
    """

    late_ms: float
    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.ttft_ms is not None


Take = Sequence[Answer]
"""One run: an answer for each of the load's requests, in their order."""


@dataclass(frozen=True, slots=True)
class Served:
    """Several runs of one load, taken together."""

    answers: tuple[Answer, ...]
    seconds: float  # from the first request to the last ending, of each run, added up
    tokens: int  # of those that ended well

    @classmethod
    def of(cls, takes: Sequence[Take], load: Load) -> Self:
        """Add up what the runs took. Raises ValueError where one of them is not this load's."""
        arrivals = load.arrivals()
        answers: list[Answer] = []
        seconds, tokens = 0.0, 0
        for take in takes:
            if len(arrivals) != len(take):
                raise ValueError(f"{load.name}: {len(take)} answers to {len(arrivals)} requests")
            pairs = list(zip(arrivals, take, strict=True))
            answers += take
            seconds += max(one.at + (answer.late_ms + answer.e2e_ms) / 1000 for one, answer in pairs) - arrivals[0].at
            tokens += sum(one.output_tokens for one, answer in pairs if answer.ok)
        return cls(tuple(answers), seconds, tokens)

    @property
    def good(self) -> float:
        """Share of the requests that ended well."""
        return sum(one.ok for one in self.answers) / len(self.answers)

    @property
    def ttft_ms(self) -> Distribution:
        """Of those that ended well."""
        return Distribution(one.ttft_ms for one in self.answers if one.ttft_ms is not None)

    @property
    def tpot_ms(self) -> Distribution:
        """Of those that ended well."""
        return Distribution(one.tpot_ms for one in self.answers if one.ok and one.tpot_ms is not None)

    @property
    def tokens_s(self) -> float:
        """Tokens delivered per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Apart:
    """How much one differs from the other, as shares of the other's figures."""

    good: float  # of all requests, how many more or fewer ended well
    tokens_s: float
    ttft_mean: float
    ttft: float  # the area between the curves of all percentiles
    tpot_mean: float
    tpot: float
    farthest: tuple[float, float]  # percentile (`TENTHS`) of TTFT, and of TPOT

    @property
    def most(self) -> float:
        """The largest share, the farthest percentiles left out."""
        return max(map(abs, (self.tokens_s, self.ttft_mean, self.ttft, self.tpot_mean, self.tpot)))


def apart(ours: Served, real: Served) -> Apart:
    """Compare."""

    def share(of: Callable[[Served], float]) -> float:
        return of(ours) / of(real) - 1.0 if of(real) else nan

    return Apart(
        ours.good - real.good,
        share(lambda run: run.tokens_s),
        share(lambda run: run.ttft_ms.mean),
        ours.ttft_ms.area(real.ttft_ms),
        share(lambda run: run.tpot_ms.mean),
        ours.tpot_ms.area(real.tpot_ms),
        (ours.ttft_ms.distance(real.ttft_ms), ours.tpot_ms.distance(real.tpot_ms)),
    )


def percentiles(of: Distribution) -> list[list[float]]:
    """[percentile, value] of each that is compared."""
    return [[p, of.percentile(p)] for p in TENTHS]
