"""docs/simulation.md says what its JSON says, shows what that draws, and a seed brings the same again."""

import json
from pathlib import Path

import pytest

from simulator.experiments import page
from simulator.experiments.registry import found
from simulator.experiments.telling import kept

FILES = sorted(page.FOLDER.glob("*.json"))
QUICK = ("transfer", "fig12a")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_was_found_is_on_the_page_with_its_pictures(file: Path) -> None:
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["name"] == file.stem
    assert page.section(result) in page.PAGE.read_text(encoding="utf-8"), "python -m simulator NAME --draw renews it"
    for name, picture in page.pictures(result).items():
        drawn = page.FOLDER / f"{name}.svg"
        assert drawn.read_text(encoding="utf-8") == picture


def test_every_experiment_is_on_the_page_and_nothing_else_is() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    names = set(found())
    assert {file.stem for file in FILES} == names
    assert {line[5:-4] for line in text.splitlines() if line.startswith("<!-- ") and line[5] != "/"} == {
        *names,
        "experiments end",
    }
    pictures = {picture for file in FILES for picture in page.pictures(json.loads(file.read_text(encoding="utf-8")))}
    assert {file.stem for file in page.FOLDER.glob("*.svg")} == pictures


@pytest.mark.parametrize("name", QUICK)
def test_a_figure_comes_again_from_its_seed_to_the_last_digit(name: str) -> None:
    result = json.loads((page.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    experiment = found()[name]
    assert kept(experiment, result["seed"], experiment.run(result["seed"])) == result
