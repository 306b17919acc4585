"""What an experiment found, ready to be told: tables as numbers, charts as data."""

from dataclasses import dataclass, field
from typing import Any

Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name; floats are shown with three digits."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one experiment. Charts are what `bench.plots.chart` draws, without a place; most have one."""

    table: Table
    charts: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the ending of the picture's name; "" the only
    says: str = ""  # what it shows, in one or two sentences with its numbers
