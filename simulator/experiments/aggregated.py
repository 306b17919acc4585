"""Disaggregated against aggregated serving: goodput with the same instances, over workloads and objectives.

Conditions: Poisson arrivals with each workload's lengths, a straight network of 200 Gb/s, goodput per instance, and
each side at its best: the best of the ratios near the equation's, the best of two or three lengths of a chunk.
Aggregated serving comes in two forms, prompts first and in chunks (see `simulator.baselines.aggregated`). The TTFT
objective is a multiple of what the workload's 95th percentile of prompts takes alone, tight or loose, since no one
number suits all of them. Rates above what an instance could keep up without objectives are not looked at: where both
sides reach that, they are level. The first version's batching, its one pool for all scenarios and its queues are not
part of this, nor is a prefix cache. Of few answer tokens each carries a part of the hand-off: that counts against
disaggregated serving.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any, Final

from simulator.baselines.aggregated import aggregated
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.kept import read_profile
from simulator.engine.profile import Profile
from simulator.engine.roofline import DEVICES, SHAPES, calculated
from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.goodput import LOWEST, Load, Runs, best, capacity, sized
from simulator.experiments.lengths import of_trace
from simulator.measures.tally import Objectives

NAME = "aggregated"
TITLE = "Disaggregated against aggregated serving"
INSTANCES: Final = 6
CHUNKS: Final = (512, 2048, 256)
"""Tokens of a step, that are tried, the last one with the large model only: its steps are long."""
NOISE: Final = 0.1
"""As a share: of goodputs, what the length of the runs leaves open."""
RATIOS: Final = 3
"""Of prefills to decodes, that are tried: the nearest to the equation's."""
SLOTS: Final = 2
"""Of a prefill: it computes one prompt, and the next is there when it has done so."""
TIGHT, LOOSE = 2.0, 5.0
"""Times as long as the 95th percentile of the prompts takes alone."""
SMALL, LARGE = "8B", "70B TP4"
PACES: Final = {SMALL: (10, 15, 30, 100), LARGE: (20, 30, 50, 100)}
"""TPOT objectives in ms."""
SHARES: Final = (0.9, 0.99)
CLAIM: Final = 6.7


@dataclass(frozen=True, slots=True)
class Case:
    """One workload on one model. `instances`, `most`: fewer of them and more requests, where answers are long."""

    lengths: str
    model: str = SMALL
    instances: int = 6
    most: int = 800
    fixed: tuple[int, int] | None = None


CASES: Final = (
    Case("Azure conv"),
    Case("Azure code"),
    Case("Mooncake conv", most=300),
    Case("deepseek-r1", instances=3, most=1500),
    Case("4000 : 40", most=400, fixed=(4000, 40)),
    Case("Azure conv", LARGE),
)
LEAST: Final = 300
"""Requests of one run."""
TOGETHER: Final = 3
"""Aggregated instances that are simulated: rates are told per instance, and these stay full for longer than others."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One place of the map: requests per second and instance, and with which ratio or chunk."""

    aims: Objectives
    share: float
    apart: tuple[float, str]
    first: tuple[float, str]
    chunked: tuple[float, str]

    @property
    def over_first(self) -> float:
        """Times the goodput of prompts first; infinite where that has none."""
        return _times(self.apart[0], self.first[0])

    @property
    def over_chunked(self) -> float:
        """Times the goodput of the best chunk."""
        return _times(self.apart[0], self.chunked[0])

    @property
    def over_best(self) -> float:
        """Times the goodput of the better of the two forms."""
        return _times(self.apart[0], max(self.first[0], self.chunked[0]))


def _times(one: float, other: float) -> float:
    if not other:
        return inf if one else nan
    return one / other


def profiles() -> dict[str, Profile]:
    """The measured one, and a larger model by calculation."""
    return {
        SMALL: read_profile("h200-llama-8b"),
        LARGE: calculated(SHAPES["llama-70b"], DEVICES["h200"], 4),
    }


def apart(profile: Profile, prefills: int, instances: int, **others: Any) -> FleetSpec:  # noqa: ANN401
    """Disaggregated. `others`: ScenarioSpec's fields."""
    group = GroupSpec("main", prefills, instances - prefills, profile)
    return FleetSpec((ScenarioSpec("chat", (group,), prefill_slots=SLOTS, **others),))


def ratios(profile: Profile, load: Load, instances: int) -> list[int]:
    """Numbers of prefills, the one that suits the lengths first: n_p / T_p = n_d b_d / T_d, for half-full batches."""
    prompt, answer = load.means()
    batch = max(1, min(profile.max_sequences / 2, profile.kv_tokens / 2 / (prompt + answer)))
    prefill = 1.0 / sum(profile.timing.prefill_s(tokens, 0) for tokens, _ in load.pairs) * len(load.pairs)
    decode = batch / (answer * profile.timing.step_s(int(batch), batch * (prompt + answer / 2)))
    wanted = instances * decode / (prefill + decode)
    return sorted(range(1, instances), key=lambda number: abs(number - wanted))[:RATIOS]


def compared(
    profile: Profile, load: Load, several: list[tuple[Objectives, float]], seed: int, instances: int = INSTANCES
) -> Iterator[Compared]:
    """Each pair of objectives with the share that has to be within them."""
    lowest = LOWEST * capacity(profile, load)
    waits: dict[str, Any] = {
        "queue_s": 2.0 * max(aims.ttft for aims, _ in several),
        "first_token_s": 600.0,
        "timeout_s": 3600.0,
    }

    def runs(name: str, spec: FleetSpec, number: int) -> Runs:
        return Runs(name, spec, load, number * lowest, seed)

    few = min(TOGETHER, instances)
    tried, chunks = ratios(profile, load, instances), CHUNKS[: 2 + (profile.devices > 1)]
    sides = (
        (instances, [runs(f"{n}:{instances - n}", apart(profile, n, instances, **waits), instances) for n in tried]),
        (few, [runs("", aggregated(profile, few, **waits), few)]),
        (few, [runs(str(chunk), aggregated(profile, few, chunk, **waits), few) for chunk in chunks]),
    )
    for aims, share in several:
        found = [(number, *best(side, aims, share)) for number, side in sides]
        each = [(rate / number, name) for number, rate, name in found]
        yield Compared(aims, share, each[0], each[1], each[2])


def measured(case: Case, seed: int) -> list[Compared]:
    """All objectives of one case."""
    profile = profiles()[case.model]
    pairs = [case.fixed] if case.fixed is not None else of_trace(case.lengths, seed, 1000)
    longest_s = profile.timing.prefill_s(Load(case.lengths, pairs, 0).prompts(0.95), 0)
    load = sized(case.lengths, pairs, profile, case.instances, LOOSE * longest_s, (LEAST, case.most))
    several = [
        (Objectives(times * longest_s, pace / 1000), share)
        for times in (TIGHT, LOOSE)
        for pace in PACES[case.model]
        for share in SHARES
    ]
    return list(compared(profile, load, several, seed, case.instances))


# ---- how it is told


def run(seed: int) -> Findings:
    """The map: over cases and objectives."""
    every = [(case, one) for case in CASES for one in measured(case, seed)]
    return Findings(Table(HEAD, tuple(_row(case, one) for case, one in every)), {"": _chart(every)}, _says(every))


HEAD: Final = (
    "lengths",
    "model",
    "TTFT s",
    "TPOT ms",
    "share",
    "apart req/s",
    "ratio",
    "prompts first",
    "in chunks",
    "chunk",
    "x first",
    "x chunks",
)


def _row(case: Case, one: Compared) -> tuple[Cell, ...]:
    aims = (one.aims.ttft, f"{1000 * one.aims.tpot:.0f}", f"{one.share:.0%}")
    rates = (*one.apart, one.first[0], *one.chunked)
    return (case.lengths, case.model, *aims, *rates, _told(one.over_first), _told(one.over_chunked))


def _told(times: float) -> Cell:
    """Say that only one of them can, or that neither can."""
    if isnan(times):
        return "neither"
    return "only apart" if times == inf else times


def _chart(every: list[tuple[Case, Compared]]) -> dict[str, Any]:
    """Over the better form of aggregated serving, with the loose TTFT, at 99 %."""
    lines: dict[str, list[list[float]]] = {}
    for case, one in every:
        loose = one.aims.ttft == max(other.aims.ttft for same, other in every if same == case)
        if loose and one.share == SHARES[-1] and 0 < one.over_best < inf:
            lines.setdefault(f"{case.lengths}, {case.model}", []).append([1000 * one.aims.tpot, one.over_best])
    return {
        "title": "Apart or together",
        "subtitle": "Goodput at 99 % of disaggregated serving, over the better form of aggregated; 1: no difference",
        "x": {"label": "TPOT objective, ms", "log": True},
        "y": {"label": "times"},
        "lines": [{"name": name, "points": points} for name, points in lines.items()],
    }


def _says(every: list[tuple[Case, Compared]]) -> str:
    told = [(case, one) for case, one in every if one.apart[0] or one.first[0] or one.chunked[0]]
    better = sum(1 for _, one in told if one.over_best > 1 + NOISE)
    worse = sum(1 for _, one in told if one.over_best < 1 - NOISE)
    reach = [_where(case, one) for case, one in told if CLAIM <= one.over_first < inf]
    most = max((pair for pair in told if pair[1].over_best < inf), key=lambda pair: pair[1].over_best)
    least = min(told, key=lambda pair: pair[1].over_best)
    pace = max(one.aims.tpot for _, one in told)
    loose = [one.over_best for _, one in told if one.aims.tpot == pace and one.over_best < inf]
    claim = f"at {'; '.join(reach)}" if reach else "nowhere"
    return (
        f"Of {len(told)} places where the objectives can be kept, disaggregated serving carries more than the better "
        f"form of aggregated in {better}, less in {worse}, within {NOISE:.0%} in the others: {most[1].over_best:.1f} "
        f"times as much at most ({_where(*most)}), {least[1].over_best:.2f} at least ({_where(*least)}). The paper's "
        f"{CLAIM} over prompts first is reached {claim}. It needs tight TPOT, a high share and prompts that stop many "
        f"streams. At the loosest TPOT it is {min(loose):.2f} to {max(loose):.1f} times the better form: devices that "
        "do both are never idle. Where TPOT is tighter than a short answer's hand-off allows, only aggregated keeps it."
    )


def _where(case: Case, one: Compared) -> str:
    aims = f"TTFT {one.aims.ttft:.2f} s, TPOT {1000 * one.aims.tpot:.0f} ms"
    return f"{case.lengths}, {case.model}, {one.share:.0%} within {aims}"
