"""A traffic as a planner sees it: how much there is when there is most, how it moves over the day, how long it is."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from simulator.planner.aims import PlanError
from simulator.workload.arrival import Arrival
from simulator.workload.mixing import changed

BUSIEST_S: Final = 300.0
"""The fleet is sized for the busiest span of so many seconds, as it came."""
LEAST: Final = 50
"""Requests, without which a share of them says little."""
HOUR_S: Final = 3600.0
TIDE_H: Final = 6
"""Hours of traffic from which its tide is planned, too."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A whole traffic in memory."""

    arrivals: Sequence[Arrival]
    begin: float  # of its busiest span
    span_s: float

    @classmethod
    def of(cls, arrivals: Iterable[Arrival]) -> "Demand":
        """Find its busiest span. Raises PlanError where there is too little of it."""
        listed = list(arrivals)
        if len(listed) < LEAST:
            raise PlanError(f"{len(listed)} requests are too few to plan by; {LEAST} are the least")
        times = [one.at for one in listed]
        span_s = min(BUSIEST_S, max(1.0, times[-1]))
        best, begin = 0, 0.0
        for place, at in enumerate(times[:: max(1, len(times) // 20_000)]):
            del place
            number = bisect_left(times, at + span_s) - bisect_left(times, at)
            if number > best and at + span_s <= times[-1] + 1.0:
                best, begin = number, at
        return cls(listed, begin, span_s)

    @property
    def seconds(self) -> float:
        """From the first request to the last."""
        return max(1.0, self.arrivals[-1].at)

    @property
    def rate(self) -> float:
        """Requests per second on average."""
        return len(self.arrivals) / self.seconds

    @property
    def peak(self) -> float:
        """Requests per second in the busiest span."""
        return len(self.busiest()) / self.span_s

    @property
    def prompt(self) -> float:
        """Tokens on average."""
        return sum(one.input_tokens for one in self.arrivals) / len(self.arrivals)

    @property
    def answer(self) -> float:
        """Tokens on average."""
        return sum(one.output_tokens for one in self.arrivals) / len(self.arrivals)

    def busiest(self) -> list[Arrival]:
        """The requests of the busiest span, from 0, of one scenario."""
        times = [one.at for one in self.arrivals]
        low, high = bisect_left(times, self.begin), bisect_left(times, self.begin + self.span_s)
        return [changed(one, one.at - self.begin, scenario="chat") for one in self.arrivals[low:high]]

    def by_hour(self) -> list[float]:
        """The busiest five minutes of each hour, requests per second; empty where there are too few hours."""
        hours = int(self.seconds // HOUR_S)
        if hours < TIDE_H:
            return []
        counts = [0] * (hours * 12)
        for one in self.arrivals:
            place = int(one.at // 300.0)
            if place < len(counts):
                counts[place] += 1
        return [max(counts[12 * hour : 12 * hour + 12]) / 300.0 for hour in range(hours)]


def share_of(arrivals: Sequence[Arrival], share: float, seed: int) -> list[Arrival]:
    """What falls to one of several groups: each request by lot. More than all: copies at other times of the span."""
    rng = Random(f"share {seed}")
    span = max(one.at for one in arrivals) + 1e-9 if arrivals else 0.0
    whole = int(share)
    copies = [arrivals] + [
        [changed(one, (one.at + by) % span) for one in arrivals] for by in (rng.uniform(0, span) for _ in range(whole))
    ]
    kept = [one for copy in copies[:whole] for one in copy]
    kept += [one for one in copies[whole] if rng.random() < share - whole]
    return sorted(kept, key=lambda one: one.at)


def longer(arrivals: Sequence[Arrival], *, prompt: float = 1.0, answer: float = 1.0) -> list[Arrival]:
    """The same with other lengths."""
    return [
        Arrival(
            one.at,
            max(1, round(one.input_tokens * prompt)),
            max(1, round(one.output_tokens * answer)),
            one.blocks,
            one.scenario,
            one.tenant,
            one.priority,
        )
        for one in arrivals
    ]
