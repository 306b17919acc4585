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
    prompt_rows = [(1.0, float(new), new * (cached + new / 2)) for new, cached in prompts]
    half = WARM + STEPS / 2  # tokens that a sequence has got when half of its steps are measured
    step_rows = [(1.0, float(batch), batch * (context + half)) for batch, context in steps]
    prompt, step = fitted(prompt_rows, list(prompts.values())), fitted(step_rows, list(steps.values()))
    timing = Linear(prompt[0], prompt[1], prompt[2], max(LEAST_STEP_S, step[0]), step[1], step[2])
    points = _points(prompts, residuals(prompt_rows, list(prompts.values()), prompt), "prompt of {} tokens behind {}")
    points += _points(steps, residuals(step_rows, list(steps.values()), step), "step of {} at {} tokens each")
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


def _points(medians: dict[tuple[int, int], float], off: list[float], text: str) -> list[Point]:
    return [
        Point(text.format(*key), seconds, seconds * (1.0 + share))
        for (key, seconds), share in zip(medians.items(), off, strict=True)
    ]


def kept(points: list[Point], rounds: int) -> dict[str, Any]:
    """What a profile's file says of its measuring."""
    return {
        "rounds": rounds,
        "worst": round(max(abs(point.off) for point in points), 4),
        "points": [[point.what, round(1000 * point.measured, 4), round(1000 * point.fitted, 4)] for point in points],
    }
