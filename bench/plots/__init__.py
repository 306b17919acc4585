"""The pictures of docs/performance.md: drawn from the JSON beside each, which a benchmark wrote where it was measured.

`python -m bench plots` draws all of them again; `make bench` measures what can be measured on any machine first
(`python -m bench --draw`). Three kinds of files: charts; what `bench.device --json` wrote, which is named by its device
(h200.json); and what `bench.vllm --json` wrote (vllm-MODEL.json).
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.place import place
from bench.plots import bars, chart, pictures
from bench.table import Row

FOLDER: Final = Path(__file__).parents[2] / "docs" / "performance"


def rows() -> list[Row]:
    """Draw everything again. There is nothing to tell."""
    for file in sorted(FOLDER.glob("*.json")):
        picture = drawn(file.stem, json.loads(file.read_text(encoding="utf-8")))
        file.with_suffix(".svg").write_text(picture, encoding="utf-8")
    return []


def drawn(name: str, found: dict[str, Any]) -> str:
    """The picture of one file."""
    if "lines" in found:
        return chart.draw(found)
    if "roofs" in found:
        return bars.draw(pictures.of_device(found))
    return chart.draw(pictures.of_servers(name.removeprefix("vllm-"), found))


def record(found: Iterable[Row]) -> None:
    """Keep what this run measured, with the curves of the engine's steps, and draw."""
    from bench.plots import gemma  # noqa: PLC0415  torch, which who only draws need not have

    charts = {**pictures.of_rows(found), **gemma.curves()}
    FOLDER.mkdir(exist_ok=True)
    where = place()
    for name, one in charts.items():
        text = json.dumps({**one, "place": where}, indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    rows()
