"""A mixed step of our form takes what was measured; other forms take what their rules say."""

import json
import re
from statistics import mean

import pytest

from simulator.engine.forms import DistServe, Form, Linear
from simulator.engine.kept import PUBLISHED, read_profile

LINEAR = Linear(0.001, 1e-4, 1e-8, 0.005, 1e-5, 1e-8, prefill_floor_s=0.02, prefill_cached_s=1e-6)
CHUNK = 2048
"""Prompt tokens of a step when the H200 was measured."""


def measured() -> list[tuple[tuple[int, int, int], float, float]]:
    """(prompt, batch, context of each), seconds, and those of them in which the prompt's KV was copied."""
    text = (PUBLISHED / "h200-llama-8b.json").read_text(encoding="utf-8")
    points = []
    for what, whole, copying, _ in json.loads(text)["measured"]["mixed"]["points"]:
        prompt, batch, context = map(int, re.findall(r"\d+", what))
        points.append(((prompt, batch, context), whole / 1000, copying / 1000))
    return points


def cut(timing: Linear, point: tuple[int, int, int], *, general: bool = False) -> float:
    """What the mixed steps of a whole prompt take together."""
    prompt, batch, context = point
    rule = Form.mixed_s if general else Linear.mixed_s
    return sum(
        rule(timing, min(CHUNK, prompt - behind), behind, batch, batch * (context + 60))
        for behind in range(0, prompt, CHUNK)
    )


def test_a_step_and_a_prompt_add_up_but_the_step_fills_the_prompts_floor() -> None:
    step = LINEAR.step_s(10, 5000)
    assert LINEAR.mixed_s(1000, 0, 10, 5000) == pytest.approx(0.001 + 0.1 + 1e-8 * 500_000 + step)
    assert LINEAR.mixed_s(1000, 500, 10, 5000) == pytest.approx(0.001 + 0.1 + 1e-8 * 1e6 + 5e-4 + step)
    assert LINEAR.mixed_s(10, 0, 10, 5000) == LINEAR.prefill_s(10, 0), "the step is over before the floor is"


def test_mixed_steps_are_near_those_of_an_h200() -> None:
    timing = read_profile("h200-llama-8b").timing
    assert isinstance(timing, Linear)
    points = [one for one in measured() if one[0][0] >= 512]
    assert len(points) == 12
    off = [cut(timing, point) / whole - 1 for point, whole, _ in points]
    assert max(map(abs, off)) < 0.25
    assert abs(mean(off)) < 0.08
    general = [cut(timing, point, general=True) / whole - 1 for point, whole, _ in points]
    assert mean(general) < -0.15, "as if whichever is longer carried the other"
    without = [cut(timing, point) / (whole - copying) - 1 for point, whole, copying in points]
    assert abs(mean(without)) < 0.03
    assert max(map(abs, without)) < 0.25


def test_distserve_has_a_second_fit_for_large_batches() -> None:
    timing = DistServe((16.5, 0.09, 6e-6), (20.0, 6e-4, 0.04), (7.0, 6e-4, 0.16), 95)
    assert timing.step_s(94, 1000) == pytest.approx((20 + 0.6 + 0.04 * 94) / 1000)
    assert timing.step_s(95, 1000) == pytest.approx((7 + 0.6 + 0.16 * 95) / 1000)
    assert DistServe(timing.prefill, timing.decode).step_s(95, 1000) == pytest.approx((20 + 0.6 + 0.04 * 95) / 1000)
