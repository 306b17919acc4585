"""The figures of a run, made while it runs: outcomes are looked at once and not kept.

Who arrived in the window [begin, end) counts for success, attainment and latencies; what happened in the window counts
for rates. A window leaves out the warm-up and the cool-down; without one it spans from 0 to the last ending.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Final, Self

from shared.errors import Code
from simulator.measures.distribution import Distribution
from simulator.measures.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Objectives:
    """Seconds to the first token, and per token after it. Infinite: there is none."""

    ttft: float = inf
    tpot: float = inf


NONE: Final = Objectives()


class Figures:
    """Of one scenario, or of all together. Times in seconds, rates per second, shares of one; NaN of nothing."""

    def __init__(self, objectives: Objectives = NONE, begin: float = 0.0, end: float = inf) -> None:
        self.objectives = objectives
        self.begin, self.end = begin, end
        self.last = begin  # the latest ending
        self.requests = 0  # that arrived in the window, as are all up to `cached`
        self.codes: dict[Code | None, int] = {}  # None: ended well
        self.met = 0  # both objectives, and ended well
        self.offers = 0
        self.attempts = 0
        self.prompt = 0  # tokens of prompts that were computed
        self.cached = 0  # of these, found in a cache
        self.ttft = Distribution()  # of all that had a first token
        self.tpot = Distribution()  # of those that ended well, with two tokens or more
        self.e2e = Distribution()  # of those that ended well
        self.finished = 0  # ended well in the window
        self.good = 0  # and met the objectives
        self.tokens = 0.0  # delivered in the window

    def take(self, outcome: Outcome) -> None:
        """Look at one that has ended."""
        ended, first, code = outcome.ended, outcome.first, outcome.code
        self.last = max(self.last, ended)
        met = code is None and outcome.meets(self.objectives.ttft, self.objectives.tpot)
        if self.begin <= ended < self.end and code is None:
            self.finished += 1
            self.good += met
        if self.begin <= outcome.arrived < self.end:
            self._arrived(outcome, met=met)
        if first is not None and ended >= self.begin and first < self.end:
            inside = first >= self.begin and ended < self.end
            self.tokens += outcome.tokens if inside else self._inside(first, ended, outcome.tokens)

    def _arrived(self, outcome: Outcome, *, met: bool) -> None:
        code, first = outcome.code, outcome.first
        self.requests += 1
        self.met += met
        self.codes[code] = self.codes.get(code, 0) + 1
        self.offers += outcome.offers
        self.attempts += outcome.attempts
        if first is not None:
            self.prompt += outcome.arrival.input_tokens
            self.cached += outcome.cached
            self.ttft.add(first - outcome.arrived)
            if code is None:
                self.e2e.add(outcome.ended - outcome.arrived)
                if outcome.tokens > 1:
                    self.tpot.add((outcome.ended - first) / (outcome.tokens - 1))

    def _inside(self, first: float, ended: float, tokens: int) -> float:
        """Of tokens that come evenly after the first, those in the window."""
        share = (min(ended, self.end) - max(first, self.begin)) / (ended - first) if ended > first else 1.0
        return (self.begin <= first < self.end) + (tokens - 1) * share

    @classmethod
    def of(cls, several: list[Self]) -> Self:
        """All of them together. They have one window."""
        whole = cls(NONE, several[0].begin, several[0].end) if several else cls()
        whole.ttft, whole.tpot, whole.e2e = (
            Distribution.of(getattr(one, name) for one in several) for name in ("ttft", "tpot", "e2e")
        )
        whole.last = max((one.last for one in several), default=0.0)
        for one in several:
            for name in ("requests", "met", "offers", "attempts", "prompt", "cached", "finished", "good", "tokens"):
                setattr(whole, name, getattr(whole, name) + getattr(one, name))
            for code, number in one.codes.items():
                whole.codes[code] = whole.codes.get(code, 0) + number
        return whole

    @property
    def seconds(self) -> float:
        """That the window is long."""
        return min(self.end, self.last) - self.begin

    @property
    def success(self) -> float:
        """Share of the requests that ended well."""
        return _share(self.codes.get(None, 0), self.requests)

    @property
    def attainment(self) -> float:
        """Share of the requests that met their objectives; who failed did not."""
        return _share(self.met, self.requests)

    @property
    def throughput(self) -> float:
        """Requests per second that ended well."""
        return _share(self.finished, self.seconds)

    @property
    def goodput(self) -> float:
        """Requests per second that ended well and met their objectives."""
        return _share(self.good, self.seconds)

    @property
    def tokens_s(self) -> float:
        """Tokens delivered per second. Those of requests that had not ended when the run did are not known."""
        return _share(self.tokens, self.seconds)

    @property
    def hits(self) -> float:
        """Share of the prompts' tokens that the last prefill found in its cache."""
        return _share(self.cached, self.prompt)

    @property
    def offers_each(self) -> float:
        """Offers sent per request: 1 where the first prefill always takes it."""
        return _share(self.offers, self.requests)


class Tally:
    """A simulation's `record`: figures by scenario, and of all. `objectives` for all, or by scenario."""

    def __init__(
        self, objectives: Objectives | Mapping[str, Objectives] = NONE, begin: float = 0.0, end: float = inf
    ) -> None:
        self._objectives = objectives
        self._begin, self._end = begin, end
        self.scenarios: dict[str, Figures] = {}

    def __call__(self, outcome: Outcome) -> None:
        """Look at one that has ended."""
        scenario = outcome.arrival.scenario
        figures = self.scenarios.get(scenario)
        if figures is None:
            of = self._objectives
            aims = of if isinstance(of, Objectives) else of.get(scenario, NONE)
            figures = self.scenarios[scenario] = Figures(aims, self._begin, self._end)
        figures.take(outcome)

    @property
    def all(self) -> Figures:
        """Of all scenarios together, as far as they have come: made anew at each asking."""
        several = list(self.scenarios.values())
        return Figures.of(several) if several else Figures(NONE, self._begin, self._end)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else nan
