"""The page of performance shows pictures that are drawn from the figures beside them, and all of those."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from bench import plots
from bench.plots import bars, chart, pictures
from bench.table import Row

REPO = Path(__file__).parents[2]
PAGE = REPO / "docs" / "performance.md"
PLACE = {"processor": "Abacus", "cores": 2, "versions": {"python": "3.11"}, "date": "2026-01-01"}
FILES = sorted(plots.FOLDER.glob("*.json"))


def shown() -> set[str]:
    return set(re.findall(r"!\[[^]]+\]\(performance/([a-z0-9-]+)\.svg\)", PAGE.read_text(encoding="utf-8")))


def test_the_page_shows_each_picture_that_there_are_figures_of() -> None:
    assert shown() == {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_picture_is_what_its_figures_draw(file: Path) -> None:
    found = json.loads(file.read_text(encoding="utf-8"))
    assert file.with_suffix(".svg").read_text(encoding="utf-8") == plots.drawn(file.stem, found)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_figures_say_what_they_were_measured_on_and_when(file: Path) -> None:
    place = json.loads(file.read_text(encoding="utf-8"))["place"]
    assert place["cores"] > 0
    assert place["processor"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", place["date"])


def test_rows_of_a_hand_off_become_lines_of_both_ways() -> None:
    rows = [Row(f"hand-off tcp, 8B, {k}k", 10.0 * k, "ms", "block-fixed, pages", 40.0 * k) for k in (16, 1, 4)]
    lines = pictures.of_rows(rows)["handoff"]["lines"]
    assert [(line["name"], line["points"]) for line in lines] == [
        ("tcp, one buffer", [[1024.0, 10.0], [4096.0, 40.0], [16384.0, 160.0]]),
        ("tcp, block by block", [[1024.0, 40.0], [4096.0, 160.0], [16384.0, 640.0]]),
    ]


def test_rows_of_steps_become_lines_that_begin_at_their_baseline() -> None:
    rows = [
        Row("torch step, 16 sequences", 3.0, "ms", "1 sequences", 2.0),
        Row("torch step, after 5,000 finished", 3.1, "ms", "after 0 finished", 3.0),
        Row("torch step, 16 sequences of 256 tokens", 9.0, "ms", "16 sequences of 64 tokens", 8.0),
    ]
    charts = pictures.of_rows(rows)
    assert [line["points"] for line in charts["steps-batch"]["lines"]] == [[[1.0, 2.0], [16.0, 3.0]]]
    assert [line["points"] for line in charts["steps-finished"]["lines"]] == [[[0.0, 3.0], [5000.0, 3.1]]]


def test_benchmarks_that_did_not_run_leave_their_pictures_alone() -> None:
    assert pictures.of_rows([Row("gateway", 1.0, "us", "send", 1.0)]) == {}


def test_names_of_lines_never_cover_each_other() -> None:
    lines = [{"name": f"line {n}", "points": [[1.0, 5.0], [2.0, 5.0 + n / 100]]} for n in range(6)]
    picture = chart.draw(
        {"title": "t", "subtitle": "s", "x": {"label": "x"}, "y": {"label": "y"}, "lines": lines, "place": PLACE}
    )
    places = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>line \d<', picture))
    assert len(places) == 6
    assert all(below - above >= chart.APART - 0.11 for above, below in pairwise(places))
    assert places[0] >= chart.TOP
    assert places[-1] <= chart.BOTTOM + 5


def test_a_share_is_drawn_to_scale_and_said() -> None:
    bar = {"name": "decode", "share": 0.5, "said": "8 ms", "aim": 0.75}
    picture = bars.draw({"title": "t", "subtitle": "s", "bars": [bar], "place": PLACE})
    assert f'width="{bars.FULL / 2:.1f}"' in picture
    assert ">50%, 8 ms<" in picture
