"""From measured points to a profile, with how far each point is off. Pure."""

from dataclasses import dataclass
from math import inf
from typing import Any, Final

from shared.engine import EngineInfo
from simulator.engine.fit import fitted, residuals
from simulator.engine.forms import Linear
from simulator.engine.profile import Profile
from simulator.profiling.measuring import BESIDE, STEPS, WARM, Measured

ANY: Final = 0.85
"""Of all that were tried side by side: then there is no bound that could be seen."""
LEAST_STEP_S: Final = 1e-6
HALF: Final = WARM + STEPS / 2
"""Tokens that a sequence has got when half of its steps are measured."""
COEFFICIENTS: Final = 5
"""Of a prompt's time."""
Medians = dict[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Point:
    """One measured point: of what, its median in seconds, and the fit's."""

    what: str
    measured: float
    fitted: float

    @property
    def off(self) -> float:
        """Share by which the fit is off."""
        return self.fitted / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class Named:
    """What cannot be measured."""

    name: str
    devices: int = 1
    price: float = 1.0
    load_s: float = 60.0
    source: str = ""


def profile_of(info: EngineInfo, measured: Measured, named: Named) -> tuple[Profile, list[Point]]:
    """Fit ours. Raises ValueError where too few points were measured."""
    prompts, steps = measured.medians(measured.prompts), measured.medians(measured.steps)
    timing = linear(prompts, steps)
    points = [
        Point(f"prompt of {new} tokens behind {cached}", seconds, timing.prefill_s(new, cached))
        for (new, cached), seconds in prompts.items()
    ]
    points += [
        Point(f"step of {batch} at {context} tokens each", seconds, timing.step_s(batch, batch * (context + HALF)))
        for (batch, context), seconds in steps.items()
    ]
    beside = min(measured.beside, default=inf)
    profile = Profile(
        name=named.name,
        timing=timing,
        kv_tokens=info.blocks * info.block_tokens,
        kv_bytes_per_token=max(1, info.block_bytes // info.block_tokens),
        block_tokens=info.block_tokens,
        max_sequences=info.max_sequences,
        prefill_at_once=_at_once(beside),
        devices=named.devices,
        load_s=round(named.load_s, 1),
        price=named.price,
        source=named.source,
    )
    return profile, points


def _at_once(beside: float) -> int:
    """Prompts computed side by side, by how long BESIDE of them took: that many times one, or one time for all."""
    number = BESIDE / max(1.0, beside)
    return 0 if number >= ANY * BESIDE else max(1, round(number))


def linear(prompts: Medians, steps: Medians) -> Linear:
    """Our form of prompts by (new, cached) tokens and steps by (batch, context of each), in seconds."""
    step_rows = [(1.0, float(batch), batch * (context + HALF)) for batch, context in steps]
    step = fitted(step_rows, list(steps.values()))
    fixed, floor, token, pair, cached = _prompt(prompts)
    return Linear(
        prefill_fixed_s=fixed,
        prefill_token_s=token,
        prefill_pair_s=pair,
        step_fixed_s=max(LEAST_STEP_S, step[0]),
        step_sequence_s=step[1],
        step_context_s=step[2],
        prefill_floor_s=floor,
        prefill_cached_s=cached,
    )


def _prompt(prompts: Medians) -> tuple[float, ...]:
    """Fixed, floor, token, pair, cached. Which prompts are at the floor is tried out: all those below each length."""
    times = list(prompts.values())
    if len(times) <= COEFFICIENTS:  # too few to tell a floor, or what is cached
        fixed, token, pair = fitted([(1.0, new, new * (cached + new / 2)) for new, cached in prompts], times)
        return fixed, 0.0, token, pair, 0.0
    best: tuple[float, tuple[float, ...]] = (inf, ())
    for bound in (0, *sorted({new for new, _ in prompts})[:-2]):
        rows = [
            (1.0, float(new <= bound), float(new > bound) * new, new * (cached + new / 2), float(cached))
            for new, cached in prompts
        ]
        found = fitted(rows, times)
        off = sum(share * share for share in residuals(rows, times, found))
        fits = all((found[1] >= found[2] * new) == (new <= bound) for new, _ in prompts)
        if fits and off < best[0]:
            best = off, found
    return best[1]


def kept(points: list[Point], rounds: int) -> dict[str, Any]:
    """What a profile's file says of its measuring."""
    return {
        "rounds": rounds,
        "worst": round(max(abs(point.off) for point in points), 4),
        "points": [[point.what, round(1000 * point.measured, 4), round(1000 * point.fitted, 4)] for point in points],
    }
