"""What a load's requests took: in a real run as recorded, and in the simulator; and how far apart the two are."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from math import nan
from typing import Any, Final, Self

from shared.policy.routes import RouteRules
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.kept import of_sim
from simulator.measures.distribution import TENTHS, Distribution
from simulator.measures.outcome import Outcome
from simulator.validation.loads import Load

RECORD: Final = resources.files("simulator.validation") / "recorded.json"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's times in ms from when it was sent; None: it was refused, or broke off."""

    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.ttft_ms is not None


@dataclass(frozen=True, slots=True)
class Served:
    """A whole run, one answer for each of the load's requests, in their order."""

    answers: tuple[Answer, ...]
    seconds: float  # from the first request to the last ending
    tokens: int  # of those that ended well

    @classmethod
    def of(cls, answers: Sequence[Answer], load: Load) -> Self:
        """Add up what a run took. Raises ValueError where it is not this load's."""
        arrivals = load.arrivals()
        if len(arrivals) != len(answers):
            raise ValueError(f"{load.name}: {len(answers)} answers to {len(arrivals)} requests")
        pairs = list(zip(arrivals, answers, strict=True))
        last = max(one.at + answer.e2e_ms / 1000 for one, answer in pairs)
        return cls(tuple(answers), last - arrivals[0].at, sum(one.output_tokens for one, answer in pairs if answer.ok))

    @property
    def good(self) -> int:
        """How many ended well."""
        return sum(one.ok for one in self.answers)

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


def simulated(load: Load, message_s: float) -> Served:
    """The load through the simulator, with the settings of the real run."""
    cache = None if load.options.get("enable_prefix_cache") else 0
    group = GroupSpec("main", load.prefills, load.decodes, of_sim(load.options))
    scenario = ScenarioSpec(
        "chat",
        (group,),
        prefill_slots=load.prefill_slots,
        queue_s=load.queue_s,
        routes=RouteRules(),
        block_tokens=int(load.options["block_size"]),
        cache_blocks=cache,
    )
    arrivals, outcomes = load.arrivals(), dict[int, Outcome]()

    def record(outcome: Outcome) -> None:
        outcomes[id(outcome.arrival)] = outcome

    simulation = Simulation(FleetSpec((scenario,), message_s=message_s), record)
    simulation.feed(arrivals)
    simulation.run()
    return Served.of([_answer(outcomes[id(one)]) for one in arrivals], load)


def _answer(outcome: Outcome) -> Answer:
    if not outcome.ok or outcome.ttft is None:
        return Answer(None, None, outcome.e2e * 1000)
    return Answer(outcome.ttft * 1000, None if outcome.tpot is None else outcome.tpot * 1000, outcome.e2e * 1000)


@dataclass(frozen=True, slots=True)
class Apart:
    """How much the simulated run differs from the real one, as shares of the real one's figures."""

    good: int  # requests that ended well, more or fewer
    tokens_s: float
    ttft_mean: float
    ttft: float  # the largest of all percentiles
    tpot_mean: float
    tpot: float

    @property
    def most(self) -> float:
        """The largest share."""
        return max(map(abs, (self.tokens_s, self.ttft_mean, self.ttft, self.tpot_mean, self.tpot)))


def apart(ours: Served, real: Served) -> Apart:
    """Compare."""

    def share(of: Callable[[Served], float]) -> float:
        return of(ours) / of(real) - 1.0 if of(real) else nan

    return Apart(
        ours.good - real.good,
        share(lambda run: run.tokens_s),
        share(lambda run: run.ttft_ms.mean),
        ours.ttft_ms.distance(real.ttft_ms),
        share(lambda run: run.tpot_ms.mean),
        ours.tpot_ms.distance(real.tpot_ms),
    )


def percentiles(of: Distribution) -> list[list[float]]:
    """[percentile, value] of each that is compared."""
    return [[p, of.percentile(p)] for p in TENTHS]


# ---- the record


def recorded() -> dict[str, Any]:
    """Real runs by load, `message_s` and how it was measured, the machine and the date."""
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def real(record: dict[str, Any], load: Load) -> Served:
    """A load's recorded run. Raises ValueError where the load has become another one."""
    run = record["runs"][load.name]
    if run["options"] != load.options or run["fleet"] != fleet(load):
        raise ValueError(f"{load.name} was recorded with other settings: record it anew")
    return Served.of([Answer(*one) for one in run["answers"]], load)


def fleet(load: Load) -> list[float]:
    """What is kept of a load's fleet beside the engine's options."""
    return [load.prefills, load.decodes, load.prefill_slots, load.queue_s]
