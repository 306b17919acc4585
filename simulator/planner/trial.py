"""One fleet under one traffic: what P/D-Serve's equation expects of it, and what the simulation finds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Final

from shared.policy.dispatch_events import DispatchRules
from shared.policy.routes import RouteRules
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import FleetSpec, GroupSpec, ScenarioSpec
from simulator.engine.profile import Profile
from simulator.measures.tally import Figures, Objectives, Tally
from simulator.planner.aims import Aims
from simulator.workload.arrival import Arrival

WARM: Final = 0.15
"""Of a span, that fills the fleet and does not count."""
SLOTS: Final = 4


@dataclass(frozen=True, slots=True)
class Group:
    """Prefills and decodes of one profile."""

    profile: Profile
    prefill: int
    decode: int

    @property
    def size(self) -> int:
        """Instances."""
        return self.prefill + self.decode

    @property
    def price(self) -> float:
        """Of an hour."""
        return self.size * self.profile.devices * self.profile.price

    def __str__(self) -> str:
        return f"{self.prefill}:{self.decode} {self.profile.name}"


@dataclass(frozen=True, slots=True)
class Capability:
    """Requests per second of one instance of each role, by the equation: b / T."""

    prefill: float
    decode: float
    batch: int  # b_d: sequences that a decode may have within the objective


def capability(profile: Profile, arrivals: Sequence[Arrival], aims: Aims) -> Capability | None:
    """What the equation expects; None where even one request of mean lengths alone misses an objective."""
    number, timing = len(arrivals), profile.timing
    prompt, answer = (
        sum(getattr(one, name) for one in arrivals) / number for name in ("input_tokens", "output_tokens")
    )
    context, t_p = prompt + answer / 2, sum(timing.prefill_s(one.input_tokens, 0) for one in arrivals) / number
    if timing.step_s(1, context) > aims.tpot_s or t_p > aims.ttft_s:
        return None
    fits = floor(profile.kv_tokens / (prompt + answer))
    low, high = 1, max(1, min(profile.max_sequences, fits))
    while low < high:
        middle = (low + high + 1) // 2
        if timing.step_s(middle, middle * context) <= aims.tpot_s:
            low = middle
        else:
            high = middle - 1
    t_d = answer * timing.step_s(low, low * context)
    return Capability(1.0 / t_p, low / t_d, low)


@dataclass(frozen=True, slots=True)
class Found:
    """What a trial found."""

    figures: Figures
    ttft_met: float  # shares of all requests
    tpot_met: float

    @property
    def share(self) -> float:
        """Of requests that met both objectives."""
        return self.figures.attainment


@dataclass(frozen=True, slots=True)
class Cache:
    """A prefill's prefix cache: so many blocks of so many tokens, as the traffic's block ids count."""

    blocks: int = 0
    tokens: int = 512


def tried(group: Group, arrivals: Sequence[Arrival], aims: Aims, batch: int, cache: Cache) -> Found:
    """Let one group serve these. `batch`: of a decode; what does not fit waits in its slot."""
    profile = replace(group.profile, max_sequences=max(1, min(group.profile.max_sequences, batch)))
    scenario = ScenarioSpec(
        "chat",
        (GroupSpec("main", group.prefill, group.decode, profile),),
        ttft_s=aims.ttft_s,
        tpot_s=aims.tpot_s,
        prefill_slots=SLOTS,
        queue_s=max(30.0, 4 * aims.ttft_s),
        first_token_s=max(60.0, 8 * aims.ttft_s),
        routes=RouteRules(affinity=cache.blocks != 0),
        cache_blocks=cache.blocks,
        block_tokens=cache.tokens,
    )
    begin = WARM * max(one.at for one in arrivals)
    tally, ttft = Tally(Objectives(aims.ttft_s, aims.tpot_s), begin=begin), Tally(Objectives(aims.ttft_s), begin=begin)
    simulation = Simulation(FleetSpec((scenario,), rules=DispatchRules(max_waiting=10_000, max_open=1 << 30)), tally)
    simulation.ended.append(ttft)
    simulation.feed(arrivals)
    simulation.run()
    figures = tally.all
    ok = figures.tpot.share_within(aims.tpot_s) if len(figures.tpot) else 1.0
    return Found(figures, ttft.all.attainment, ok)
