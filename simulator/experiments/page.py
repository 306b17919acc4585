"""The page of experiments, docs/simulation.md, and what lies beside it: a JSON of each, and its pictures.

Owns what is between `<!-- NAME -->` and `<!-- /NAME -->`; all else on the page is written by hand. Needs the checkout:
neither the page nor what draws its pictures (`bench.plots`) is installed.
"""

import importlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from simulator.experiments.introductions import INTRODUCTIONS
from simulator.experiments.telling import Kept, markdown, written

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "simulation.md"
FOLDER: Final = PAGE.with_suffix("")
END: Final = "<!-- experiments end -->"
"""Before it, sections are added."""


class NoCheckout(Exception):
    """Raised where there is no page, or nothing that draws."""

    def __init__(self) -> None:
        super().__init__(
            "pages are drawn in a checkout of the repository, from its root: bench/ and docs/ are not installed"
        )


def check() -> None:
    """Raise NoCheckout before a long experiment runs in vain."""
    if not PAGE.exists() or importlib.util.find_spec("bench") is None:
        raise NoCheckout


def keep(found: Kept, order: Iterable[str]) -> None:
    """Write what was found, its pictures and its section. `order` names all experiments as the page has them."""
    check()
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{found['name']}.json"
    if file.exists():  # pictures that are not drawn any more go
        for picture in pictures(json.loads(file.read_text(encoding="utf-8"))):
            (FOLDER / f"{picture}.svg").unlink(missing_ok=True)
    file.write_text(written(found), encoding="utf-8")
    for picture, drawn in pictures(found).items():
        (FOLDER / f"{picture}.svg").write_text(drawn, encoding="utf-8")
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), found, order), encoding="utf-8")


def read() -> Iterator[Kept]:
    """All that was kept."""
    for file in sorted(FOLDER.glob("*.json")):
        found: Kept = json.loads(file.read_text(encoding="utf-8"))
        yield found


def pictures(found: Kept) -> dict[str, str]:
    """Each picture by its name without an ending."""
    foot = f"simulated · python -m simulator {found['name']} --seed {found['seed']}"
    return {_name(found, ending): _drawn({**chart, "foot": foot}) for ending, chart in found["charts"].items()}


def section(found: Kept) -> str:
    """An experiment's part of the page, its marks included."""
    name = found["name"]
    shows = [f"![{chart['title']}](simulation/{_name(found, end)}.svg)" for end, chart in found["charts"].items()]
    command = f"`python -m simulator {name}`, seed {found['seed']}"
    parts = [
        f"<!-- {name} -->",
        f"### {found['title']}",
        INTRODUCTIONS.get(name, "").strip(),
        *shows,
        found["says"],
        markdown(found["table"]),
        command,
        f"<!-- /{name} -->",
    ]
    return "\n\n".join(part for part in parts if part)


def renewed(page: str, found: Kept, order: Iterable[str]) -> str:
    """The page with this section in it: where it was, or else before the next one in order that is there."""
    name = found["name"]
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin in page:
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        return before + section(found) + after
    names = list(order)
    later = [f"<!-- {other} -->" for other in names[names.index(name) + 1 :]]
    mark = next((mark for mark in later if mark in page), END)
    before, _, after = page.partition(mark)
    return f"{before}{section(found)}\n\n{mark}{after}"


def _name(found: Kept, ending: str) -> str:
    return f"{found['name']}-{ending}" if ending else str(found["name"])


def _drawn(chart: dict[str, Any]) -> str:
    form = importlib.import_module("bench.plots.bars" if "bars" in chart else "bench.plots.chart")
    picture: str = form.draw(chart)
    return picture
