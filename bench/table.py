"""A benchmark's rows: each figure beside a baseline of the same run, because machines differ and are shared."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `baseline` is in the same unit; the ratio is value / baseline."""

    name: str
    value: float
    unit: str
    baseline_name: str
    baseline: float

    @property
    def ratio(self) -> float:
        """How many times the baseline; whether more is better depends on the unit."""
        return self.value / self.baseline if self.baseline else float("nan")


def render(rows: list[Row]) -> str:
    """The rows as a table in fixed-width text."""
    cells = [("what", "value", "unit", "baseline", "its value", "ratio")]
    cells += [(r.name, f"{r.value:.4g}", r.unit, r.baseline_name, f"{r.baseline:.4g}", f"{r.ratio:.2f}x") for r in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
