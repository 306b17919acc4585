"""Coefficients that fit what was measured: least squares of relative errors, none of them negative. Pure.

Lawson and Hanson's active sets in their simplest form, for the three coefficients of a few dozen measurements.
"""

from collections.abc import Sequence
from typing import Final

ROUNDS: Final = 64
Row = tuple[float, ...]


def fitted(rows: Sequence[Row], measured: Sequence[float]) -> tuple[float, ...]:
    """The coefficients c with the least sum of ((row . c - measured) / measured)**2 and c >= 0.

    Raises ValueError where there are fewer measurements than coefficients, or one is not above 0.
    """
    if not rows or len(rows) != len(measured) or len(rows) < len(rows[0]) or min(measured) <= 0.0:
        raise ValueError("as many measurements above 0 are wanted as there are coefficients, or more")
    scaled = [tuple(value / y for value in row) for row, y in zip(rows, measured, strict=True)]
    width = len(rows[0])
    free = list(range(width))
    for _ in range(ROUNDS):
        found = _solved(scaled, free)
        worst = min(range(len(free)), key=lambda place: found[place], default=None)
        if worst is None or found[worst] >= 0.0:
            whole = [0.0] * width
            for place, index in enumerate(free):
                whole[index] = found[place]
            return tuple(whole)
        free.pop(worst)
    raise AssertionError("each round takes one coefficient away")


def residuals(rows: Sequence[Row], measured: Sequence[float], found: Sequence[float]) -> list[float]:
    """By how much of it each measurement is missed."""
    return [
        sum(a * b for a, b in zip(row, found, strict=True)) / y - 1.0 for row, y in zip(rows, measured, strict=True)
    ]


def _solved(scaled: Sequence[Row], free: Sequence[int]) -> list[float]:
    """The normal equations of these columns against ones, by Gauss with the largest pivot."""
    size = len(free)
    scale = [max(1e-300, *(abs(row[i]) for row in scaled)) for i in free]
    system = [
        [sum(row[i] / scale[a] * row[j] / scale[b] for row in scaled) for b, j in enumerate(free)]
        + [sum(row[i] / scale[a] for row in scaled)]
        for a, i in enumerate(free)
    ]
    for column in range(size):
        pivot = max(range(column, size), key=lambda line: abs(system[line][column]))
        system[column], system[pivot] = system[pivot], system[column]
        if abs(system[column][column]) < 1e-12:  # noqa: PLR2004  nothing tells it from the others: let it be 0
            system[column][column:] = [1.0] + [0.0] * (size - column)
        for line in range(size):
            if line != column:
                part = system[line][column] / system[column][column]
                system[line] = [a - part * b for a, b in zip(system[line], system[column], strict=True)]
    return [system[line][size] / system[line][line] / scale[line] for line in range(size)]
