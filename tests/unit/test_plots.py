"""Pictures say what their JSON says."""

from typing import Any

from bench.plots import bars, chart


def curve(points: int, **more: Any) -> str:
    line = {"name": "a line", "points": [[float(at), float(at % 7)] for at in range(points)], **more}
    axes = {"x": {"label": "seconds"}, "y": {"label": "requests"}}
    return chart.draw({"title": "T", "subtitle": "S", **axes, "lines": [line], "foot": "simulated"})


def test_few_points_are_dots_and_many_are_a_line() -> None:
    assert curve(10).count("<circle") == 10
    assert curve(60).count("<circle") == 0
    assert curve(10, dashed=True).count("<circle") == 0


def test_a_picture_names_its_lines_its_axes_and_its_foot() -> None:
    drawn = curve(10)
    assert all(said in drawn for said in ("a line", "seconds", "requests", "simulated"))


def test_bars_show_any_number() -> None:
    found = {
        "title": "T",
        "subtitle": "S",
        "x": {"label": "ppm"},
        "bars": [{"name": "one", "value": 12.5}, {"name": "other", "value": 400.0, "said": "four hundred"}],
        "foot": "simulated",
    }
    drawn = bars.draw(found)
    assert "four hundred" in drawn
    assert "one" in drawn
