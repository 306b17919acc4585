"""A profile's file is read strictly: everything that is wrong with it is said at once."""

import json
from pathlib import Path

import pytest

from simulator.engine.forms import Points
from simulator.engine.kept import ProfileError, of_sim, published, read_profile, write_profile
from simulator.engine.roofline import DEVICES, MULTIPLIES, OVERHEAD_S, READS, SHAPES, calculated
from simulator.engine.strategies import ALL, BATCH, CONCURRENCY, FIGURE_8, strategy


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    write_profile(path, of_sim({}), {})
    read = json.loads(path.read_text())
    del read["name"]
    path.write_text(json.dumps({**read, "price": -1.0, "kv_token": 5, "devices": 0}))
    with pytest.raises(ProfileError) as caught:
        read_profile(str(path))
    for told in ("name is missing", "price", "unknown field kv_token", "devices"):
        assert told in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("field", ["load_s", "price"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, field: str, number: str) -> None:
    path = tmp_path / "p.json"
    write_profile(path, of_sim({}), {})
    read = json.loads(path.read_text())
    path.write_text(json.dumps({**read, field: "HERE"}).replace('"HERE"', number))
    with pytest.raises(ProfileError, match=field):
        read_profile(str(path))


@pytest.mark.parametrize("text", ["[]", "3", "{", ""])
def test_what_is_no_object_is_no_profile(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"p\.json"):
        read_profile(str(path))


def test_points_that_are_no_grid_are_told_with_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    write_profile(path, of_sim({}), {})
    timing = {"form": "points", "prefill": [[1, 1.0], [2, 2.0]], "decode": [[1, 64, 5.0]]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "timing": timing, "price": 0}))
    with pytest.raises(ProfileError, match=r"grid.*price|price.*grid"):
        read_profile(str(path))
    assert Points(((1, 1.0), (2, 2.0)), tuple((b, n, 5.0) for b in (1, 8) for n in (64, 128)))


def test_the_sim_engines_profile_is_published_as_its_defaults() -> None:
    assert "sim" in published()
    assert read_profile("sim") == of_sim({})


def test_a_roofline_is_its_data_sheet() -> None:
    one = calculated(SHAPES["llama-8b"], DEVICES["h200"]).timing
    assert one.step_s(1, 0) - OVERHEAD_S == pytest.approx(2 * 8.03e9 / (READS * 4.8e12), rel=0.01)
    prompt = one.prefill_s(4096, 0) - OVERHEAD_S
    pairs = 4 * 32 * 32 * 128 * 4096 * 2048
    assert prompt == pytest.approx((2 * 8.03e9 * 4096 + pairs) / (MULTIPLIES * 989e12), rel=0.01)


def test_each_point_of_scalellms_figure_is_near() -> None:
    for degree, told in FIGURE_8.items():
        timing, replicas = strategy(degree).timing, ALL // degree
        for concurrency, tokens_s in zip(CONCURRENCY, told, strict=True):
            used = min(replicas, concurrency)
            batch = min(BATCH, concurrency // used)
            found = used * batch / timing.step_s(batch, batch * 400)
            assert found == pytest.approx(tokens_s, rel=0.11 if concurrency <= 128 else 0.2), (degree, concurrency)
