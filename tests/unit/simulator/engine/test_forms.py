"""Each form of timing says what its formula says."""

import json
from pathlib import Path
from random import Random

import pytest

from simulator.engine.fit import fitted, residuals
from simulator.engine.forms import DistServe, Dynamo, Form, Linear, Points, Sim
from simulator.engine.kept import ProfileError, of_sim, published, read_profile, write_profile
from simulator.engine.roofline import DEVICES, SHAPES, calculated
from simulator.engine.strategies import FIGURE_8, strategy

LINEAR = Linear(0.01, 1e-4, 1e-8, 0.005, 1e-5, 1e-8)
POINTS = Points(
    ((128, 20.0), (1024, 90.0), (4096, 500.0)),
    tuple((b, n, 5 + 0.1 * b + b * n / 1e4) for b in (1, 8, 64) for n in (64, 4096)),
)
FORMS = [
    LINEAR,
    Sim((1e-5, 0.1, 20.0), 20.0, 0.1),
    Dynamo(200_000),
    DistServe((18.9, 0.06, 6e-6), (18.9, 4e-6, 0.09)),
    POINTS,
    calculated(SHAPES["llama-70b"], DEVICES["h200"], 4).timing,
    calculated(SHAPES["mixtral-8x7b"], DEVICES["h100"], 8).timing,
]


def test_our_own_form_adds_up_attention_by_pairs() -> None:
    assert LINEAR.prefill_s(1000, 0) == pytest.approx(0.01 + 0.1 + 1e-8 * 500_000)
    assert LINEAR.prefill_s(500, 500) == pytest.approx(0.01 + 0.05 + 1e-8 * 500 * 750)
    halves = LINEAR.prefill_s(500, 0) + LINEAR.prefill_s(500, 500) - 0.01
    assert halves == pytest.approx(LINEAR.prefill_s(1000, 0)), "in two parts it is the same work"
    assert LINEAR.step_s(10, 5000) == pytest.approx(0.005 + 1e-4 + 5e-5)


def test_the_formulas_of_others_are_theirs() -> None:
    dynamo = Dynamo(100_000)
    assert dynamo.prefill_s(2000, 0) == pytest.approx((4.209989e-07 * 4e6 + 1.518344e-02 * 2000 + 16.50142) / 1000)
    assert dynamo.step_s(5, 50_000) == pytest.approx((-25.74 / 4 + 54.01 / 2 + 5.74) / 1000)
    assert dynamo.step_s(5, 500_000) == pytest.approx((-25.74 + 54.01 + 5.74) / 1000), "no more than full"
    distserve = DistServe((18.9, 0.07, 6e-4), (20.0, 1e-4, 0.1))
    assert distserve.prefill_s(100, 0) == pytest.approx((18.9 + 7 + 6) / 1000)
    assert distserve.step_s(10, 1000) == pytest.approx((20 + 0.1 + 1) / 1000)
    assert Sim((1e-3, 0.5, 2.0), 20.0, 1.5).prefill_s(10, 90) == pytest.approx(0.0071)
    assert Sim((0, 0, 0), 20.0, 1.5).step_s(4, 999) == pytest.approx(0.026)


def test_points_are_met_and_joined() -> None:
    assert POINTS.prefill_s(1024, 0) == pytest.approx(0.090)
    assert POINTS.prefill_s(576, 0) == pytest.approx(0.055)
    assert POINTS.step_s(8, 8 * 64) == pytest.approx((5 + 0.8 + 8 * 64 / 1e4) / 1000)
    with pytest.raises(ValueError, match="grid"):
        Points(((1, 1.0), (2, 2.0)), ((1, 64, 5.0), (8, 64, 6.0), (8, 128, 6.0)))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_more_work_never_takes_less_time(form: Form) -> None:
    rng = Random(1)
    for _ in range(200):
        new, cached, batch, context = (
            rng.randint(1, 8000),
            rng.randint(0, 8000),
            rng.randint(1, 200),
            rng.randint(1, 90_000),
        )
        assert 0 < form.prefill_s(new, cached) <= form.prefill_s(new + 64, cached) * (1 + 1e-9)
        assert 0 < form.step_s(batch, context) <= form.step_s(batch, context + 640) * (1 + 1e-9)
        assert form.mixed_s(new, cached, batch, context) >= max(
            form.prefill_s(new, cached), form.step_s(batch, context)
        ) * (1 - 1e-9)


@pytest.mark.parametrize(
    "form", [one for one in FORMS if not isinstance(one, Dynamo)], ids=lambda form: type(form).__name__
)
def test_a_step_is_straight_in_its_context(form: Form) -> None:
    low, middle, high = (form.step_s(32, context) for context in (3200, 6400, 9600))
    assert middle == pytest.approx((low + high) / 2)


def test_what_is_fitted_is_found_again_beneath_noise() -> None:
    rng = Random(3)
    rows = [(1.0, n, n * n / 2) for n in (64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0) for _ in range(3)]
    true = (0.006, 2.1e-5, 2.6e-9)
    clean = [sum(a * b for a, b in zip(row, true, strict=True)) for row in rows]
    assert fitted(rows, clean) == pytest.approx(true, rel=1e-6)
    noisy = [y * rng.uniform(0.98, 1.02) for y in clean]
    assert fitted(rows, noisy) == pytest.approx(true, rel=0.1)
    assert max(map(abs, residuals(rows, noisy, fitted(rows, noisy)))) < 0.04


def test_no_coefficient_is_negative() -> None:
    rows = [(1.0, n) for n in (1.0, 2.0, 3.0)]
    assert fitted(rows, [3.0, 2.0, 1.0])[1] == 0.0
    with pytest.raises(ValueError, match="above 0"):
        fitted(rows, [3.0, 0.0, 1.0])


def test_profiles_come_back_from_their_files(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for form in FORMS:
        profile = of_sim({})
        profile = type(profile)(**{**{n: getattr(profile, n) for n in profile.__dataclass_fields__}, "timing": form})
        write_profile(path, profile, {"date": "today"})
        assert read_profile(str(path)) == profile


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kv_tokens": 0}, "kv_tokens"),
        ({"kv_token": 5}, "kv_token"),
        ({"timing": {"form": "linear"}}, "prefill_fixed_s"),
        ({"timing": {"form": "quadratic"}}, "quadratic"),
        ({"price": -1.0}, "price"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "p.json"
    write_profile(path, of_sim({}), {})
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ProfileError, match=says):
        read_profile(str(path))
    with pytest.raises(ProfileError, match="h200-llama-8b"):
        read_profile("no such one")


def test_every_published_profile_can_be_used() -> None:
    assert "h200-llama-8b" in published()
    for name in published():
        profile = read_profile(name)
        assert profile.name == name
        assert profile.source
        assert 0 < profile.timing.step_s(1, 100) <= profile.timing.prefill_s(4000, 0)


def test_a_sim_engines_profile_is_its_options() -> None:
    options = {"prefill_ms": [0, 0.2, 5], "decode_step_ms": 30, "prefill_batch": 2, "max_num_seqs": 9, "num_blocks": 50}
    profile = of_sim(options)
    assert profile.timing.prefill_s(100, 0) == pytest.approx(0.025)
    assert (profile.prefill_at_once, profile.max_sequences, profile.blocks) == (2, 9, 50)


def test_scalellms_strategies_are_near_its_figure_at_both_ends() -> None:
    for degree, told in FIGURE_8.items():
        timing = strategy(degree).timing
        one = 1.0 / timing.step_s(1, 600)
        replica = 64 / timing.step_s(64, 64 * 600)
        assert one == pytest.approx(told[0], rel=0.05)
        assert replica * 8 / degree == pytest.approx(max(told), rel=0.2)
