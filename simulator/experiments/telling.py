"""What an experiment found, as text: a table for the terminal, one for the page, and the JSON that is kept. Pure."""

import json
from typing import Any

from simulator.experiments.findings import Cell, Findings, Table
from simulator.experiments.registry import Experiment

Kept = dict[str, Any]
"""`{"name", "title", "seed", "says", "table": {"head", "rows"}, "charts"}`: what the JSON of docs/simulation holds."""


def shown(cell: Cell) -> str:
    """A cell as it is read: text as it is, whole numbers in thousands, others with three digits."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    if abs(cell) >= 1000:  # noqa: PLR2004
        return f"{cell:,.0f}"
    said = f"{cell:.3g}"
    return said if "e" not in said else f"{cell:.1e}"


def kept(experiment: Experiment, seed: int, findings: Findings) -> Kept:
    """What is kept of a run, as it comes back from its JSON."""
    found = {
        "name": experiment.name,
        "title": experiment.title,
        "seed": seed,
        "says": findings.says,
        "table": {"head": findings.table.head, "rows": findings.table.rows},
        "charts": findings.charts,
    }
    read: Kept = json.loads(written(found))
    return read


def written(found: Kept) -> str:
    """The JSON. Raises ValueError where a number is not finite: a page can say "none", not NaN."""
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def text(table: Table) -> str:
    """The table in fixed-width text, numbers to the right."""
    cells = [table.head, *(tuple(shown(cell) for cell in row) for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.head))]
    right = [_numeric(table.rows, column) for column in range(len(table.head))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown(table: Kept) -> str:
    """The table that was kept, for the page."""
    head, rows = table["head"], table["rows"]
    marks = ["---:" if _numeric(rows, column) else "---" for column in range(len(head))]
    lines = [head, marks, *([shown(cell) for cell in row] for row in rows)]
    lines = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _numeric(rows: Any, column: int) -> bool:  # noqa: ANN401  rows of a table, or of its JSON
    return any(not isinstance(row[column], str) for row in rows)
