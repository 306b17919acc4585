"""Experiments are found, told and kept; what is wrong is said."""

from types import ModuleType

import pytest

from simulator.__main__ import main
from simulator.experiments import page, registry
from simulator.experiments.findings import Findings, Table
from simulator.experiments.registry import Experiment
from simulator.experiments.telling import kept, markdown, shown, text, written

TABLE = Table(("name", "count", "share"), (("a|b", 12_345, 0.12345), ("c", 7, 1234.5)))
CHART = {
    "title": "T",
    "subtitle": "S",
    "x": {"label": "x"},
    "y": {"label": "y"},
    "lines": [{"name": "l", "points": [[1, 2], [3, 4]]}],
}


def experiment(name: str) -> Experiment:
    return Experiment(name, f"Title of {name}", lambda seed: Findings(TABLE, {"": CHART}, f"It says {seed}."))


def test_cells_are_shown_with_three_digits_and_thousands() -> None:
    assert [shown(cell) for cell in ("a", 12_345, 0.12345, 1234.5, 0.0000123)] == [
        "a",
        "12,345",
        "0.123",
        "1,234",
        "1.2e-05",
    ]


def test_tables_are_told_for_the_terminal_and_for_the_page() -> None:
    assert text(TABLE).splitlines()[0].split() == ["name", "count", "share"]
    told = markdown({"head": TABLE.head, "rows": TABLE.rows}).splitlines()
    assert told[1] == "| --- | ---: | ---: |"
    assert told[2] == "| a\\|b | 12,345 | 0.123 |"


def test_what_is_kept_comes_back_and_is_finite() -> None:
    one = experiment("one")
    found = kept(one, 3, one.run(3))
    assert (found["name"], found["seed"], found["says"]) == ("one", 3, "It says 3.")
    with pytest.raises(ValueError, match="JSON"):
        written({"name": float("nan")})


def test_sections_stand_in_order_and_are_renewed_in_place() -> None:
    order = ["one", "two", "three"]
    there = f"before\n\n{page.END}\nafter"
    for name in ("three", "one", "two", "one"):
        there = page.renewed(there, kept(experiment(name), 8, experiment(name).run(8)), order)
    places = [there.index(f"<!-- {name} -->") for name in order]
    assert places == sorted(places)
    assert there.count("<!-- one -->") == 1
    assert there.startswith("before")
    assert there.endswith("after")
    assert "![T](simulation/one.svg)" in there


def test_every_experiment_is_found_once_in_the_order_of_the_page() -> None:
    names = list(registry.found())
    assert names[:4] == ["fig12a", "fig12b", "fig12c", "fig12d"]
    assert {"grouping", "month", "scale", "million", "validation", "prefixes"} <= set(names)
    module = ModuleType("m")
    assert registry.of(module) == ()


def test_an_unknown_name_is_answered_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fig99"])
    assert "no experiment is named fig99; there are: fig12a" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert "grouping" in capsys.readouterr().out
