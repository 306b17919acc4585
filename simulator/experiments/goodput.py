"""Goodput: the most requests per second with which a fleet keeps its objectives, for many pairs of objectives at once.

Owns the search. A run at one rate is made once and asked about all objectives; rates lie on a grid, with a straight
line between the last one that keeps them and the next. All fleets see the same lengths and the same gaps, stretched
(common random numbers). Knows nothing of what is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from random import Random
from typing import Final

from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec
from simulator.engine.profile import Profile
from simulator.measures.outcome import Outcome
from simulator.measures.tally import Objectives
from simulator.workload.arrival import Arrival

GROWTH: Final = 1.2
"""From one rate of the grid to the next."""
LOWEST: Final = 0.03
"""Of the estimated capacity: whoever fails there has no goodput."""
STEPS: Final = 20
"""Of the grid, which ends below the capacity: what is above it cannot last, however well a short run looks."""
PART: Final = 512
"""Tokens of a prompt beside a decode step, for the capacity."""
STAYS: Final = 3.0
"""A run lasts so many times as long as a mean request, while the fleet fills up,"""
WAITS: Final = 8.0
"""and so many times as long as the loosest TTFT: a backlog that grows by an eighth is then beyond it at the end."""
WARM: Final = 1 / 2
"""Of the requests, that are not counted."""

Pairs = Sequence[tuple[int, int]]
"""Tokens in and out."""


@dataclass(frozen=True, slots=True)
class Load:
    """What comes: lengths by name, and how many of them make a run."""

    name: str
    pairs: Pairs
    number: int

    def prompts(self, share: float) -> int:
        """The prompt that so many of them do not exceed, in tokens."""
        ordered = sorted(tokens for tokens, _ in self.pairs)
        return ordered[min(len(ordered) - 1, ceil(share * len(ordered)))]

    def means(self) -> tuple[float, float]:
        """Tokens in and out."""
        number = len(self.pairs)
        return sum(one for one, _ in self.pairs) / number, sum(one for _, one in self.pairs) / number


def capacity(profile: Profile, load: Load) -> float:
    """Requests per second of one instance without any objective, B sequences being what its cache holds.

    1 / (T_p + G * step / B), or more where a prompt's parts and the steps of the batch go together.
    """
    prompt, answer = load.means()
    held, timing = prompt + answer / 2, profile.timing
    batch = max(1, min(profile.max_sequences, int(profile.kv_tokens / held)))
    step_s, steps = timing.step_s(batch, batch * held), answer / batch
    apart_s = sum(timing.prefill_s(tokens, 0) for tokens, _ in load.pairs) / len(load.pairs) + steps * step_s
    parts, behind = prompt / PART, round(prompt / 2)
    both = min(parts, steps)
    together_s = both * timing.mixed_s(PART, behind, batch, batch * held)
    together_s += (parts - both) * timing.prefill_s(PART, behind) + (steps - both) * step_s
    return 1.0 / min(apart_s, together_s)


def sized(  # noqa: PLR0917
    name: str, pairs: Pairs, profile: Profile, instances: int, ttft: float, bounds: tuple[int, int]
) -> Load:
    """A load whose runs last long enough, as far as the bounds of their requests allow. `ttft`: the loosest."""
    load = Load(name, pairs, bounds[0])
    stays = load.means()[1] * profile.timing.step_s(64, 64 * load.means()[0])
    wanted = round(max(STAYS * stays, WAITS * ttft) * capacity(profile, load) * instances)
    return Load(name, pairs, max(bounds[0], min(bounds[1], wanted)))


class Runs:
    """One fleet under one load: what each request took, by the rate's place on the grid."""

    def __init__(self, name: str, spec: FleetSpec, load: Load, lowest: float, seed: int) -> None:
        self.name = name
        self._spec = spec
        self._load = load
        self._lowest = lowest
        self._seed = seed
        self._made: dict[int, list[tuple[float, float]]] = {}

    def rate(self, place: float) -> float:
        """Requests per second there."""
        return self._lowest * float(GROWTH**place)

    def attained(self, place: int, aims: Objectives) -> float:
        """Share of the requests within both objectives at that rate."""
        took = self._made.get(place)
        if took is None:
            took = self._made[place] = self._run(self.rate(place))
        return sum(1 for ttft, tpot in took if ttft <= aims.ttft and tpot <= aims.tpot) / len(took)

    def _run(self, rate: float) -> list[tuple[float, float]]:
        took: list[tuple[float, float]] = []
        begins = self._arrivals(rate)
        from_s = begins[int(WARM * len(begins))].at

        def hear(outcome: Outcome) -> None:
            if outcome.arrived >= from_s:
                ttft, tpot = outcome.ttft, outcome.tpot
                failed = not outcome.ok or ttft is None
                took.append((inf, inf) if failed or ttft is None else (ttft, tpot or 0.0))

        simulation = Simulation(self._spec, hear)
        simulation.feed(begins)
        simulation.run()
        return took

    def _arrivals(self, rate: float) -> list[Arrival]:
        rng, at, arrivals = Random(f"goodput {self._seed} {self._load.name}"), 0.0, list[Arrival]()
        for _ in range(self._load.number):
            at += rng.expovariate(1.0)
            prompt, answer = self._load.pairs[rng.randrange(len(self._load.pairs))]
            arrivals.append(Arrival(at / rate, prompt, answer))
        return arrivals


def goodput(runs: Runs, aims: Objectives, share: float, beyond: int = -1) -> float:
    """The highest rate with that share within the objectives; 0: none. `beyond`: a place that is known to keep them."""
    low, high = beyond, STEPS
    while high - low > 1:
        middle = (low + high) // 2
        if runs.attained(middle, aims) >= share:
            low = middle
        else:
            high = middle
    if low < 0:
        return 0.0
    if high == STEPS:
        return runs.rate(low)
    kept, lost = runs.attained(low, aims), runs.attained(high, aims)
    return runs.rate(low + (kept - share) / (kept - lost))


def best(several: Sequence[Runs], aims: Objectives, share: float) -> tuple[float, str]:
    """The most that one of them brings, and which; the likely best goes first, for the others then cost little."""
    most, name, place = 0.0, "", -1
    for runs in several:
        if place >= 0 and runs.attained(place, aims) < share:
            continue
        found = goodput(runs, aims, share, place)
        if found > most:
            most, name = found, runs.name
            while place + 1 < STEPS and runs.rate(place + 1) <= most:
                place += 1
    return most, name
