"""A chart of lines, each named where it ends. Pure: from a chart's JSON to the text of an SVG.

`{"title", "subtitle", "x": axis, "y": axis, "lines": [line, ...], "place"}`; an axis is `{"label", "log"?}`, a line
`{"name", "points": [[x, y], ...], "dashed"?, "colour"?}`; what was not measured at a place says `"foot"`, a line of
text, instead. Ticks of the x axis are the measured ones, or round ones where there are many; a y axis that is not
logarithmic begins at 0. A line of many points has no dots.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

from bench.place import caption
from bench.plots import svg

Chart = dict[str, Any]
HEIGHT: Final = 400.0
LEFT: Final = 66.0
RIGHT: Final = 552.0
TOP: Final = 90.0
BOTTOM: Final = 330.0
APART: Final = 17.0
"""Between names, so that none covers another."""
MANY: Final = 40
"""Points, which dots would cover, and whose places are no ticks."""
STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


class Axis:
    """From values to places."""

    def __init__(self, values: list[float], first: float, last: float, *, log: bool, zero: bool = False) -> None:
        self._log = log
        self._first, self._last = first, last
        self.low, self.high = (0.0 if zero and not log else min(values)), max(values)
        self.ticks = _decades(self.low, self.high) if log else round_numbers(self.low, self.high)
        if zero and not log:
            self.high = self.ticks[-1]
        elif zero:
            self.low, self.high = self.low / 1.15, self.high * 1.15

    @property
    def within(self) -> list[float]:
        """Round values between the ends."""
        if self._log:
            return [tick for tick in self.ticks if self.low <= tick <= self.high]
        step = _step(self.low, self.high)
        return [place * step for place in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def __call__(self, value: float) -> float:
        """Where that is."""
        low, high = self._of(self.low), self._of(self.high)
        share = (self._of(value) - low) / (high - low or 1.0)
        return self._first + share * (self._last - self._first)

    def _of(self, value: float) -> float:
        return math.log(value) if self._log else value


def round_numbers(low: float, high: float) -> list[float]:
    """Four or five round numbers from the lower to beyond the higher one."""
    step = _step(low, high)
    count = math.ceil((high - low) / step - 1e-9)
    return [low + place * step for place in range(count + 1)]


def _step(low: float, high: float) -> float:
    rough = (high - low or 1.0) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    return next(step for step in STEPS if step * size >= rough) * size


def _decades(low: float, high: float) -> list[float]:
    found = [base * 10.0**power for power in range(-6, 9) for base in (1.0, 2.0, 5.0)]
    few = [tick for tick in found if low / 1.15 <= tick <= high * 1.15]
    return few if len(few) <= 8 else [tick for tick in few if math.log10(tick) % 1 < 1e-9]


def draw(chart: Chart) -> str:
    """The picture."""
    points = [point for line in chart["lines"] for point in line["points"]]
    measured = sorted({x for x, _ in points})
    x = Axis(measured, LEFT, RIGHT, log=bool(chart["x"].get("log")))
    y = Axis([y for _, y in points], BOTTOM, TOP, log=bool(chart["y"].get("log")), zero=True)
    ticks = measured if len(measured) <= MANY else x.within
    inside = [*_grid(chart, x, y, ticks), *_lines(chart, x, y)]
    return svg.card(HEIGHT, chart["title"], chart["subtitle"], foot(chart), inside)


def foot(chart: Chart) -> str:
    """Where its figures come from."""
    return str(chart["foot"]) if "foot" in chart else caption(chart["place"])


def _grid(chart: Chart, x: Axis, y: Axis, ticks: list[float]) -> Iterator[str]:
    for tick in y.ticks:
        yield svg.stroke([(LEFT, y(tick)), (RIGHT, y(tick))], svg.FAINT)
        yield svg.text(LEFT - 10, y(tick) + 4, svg.number(tick), fill=svg.SOFT, anchor="end", size=12)
    last = -math.inf
    for tick in ticks:
        if x(tick) - last > 30:  # where two are close, the first is said
            yield svg.text(x(tick), BOTTOM + 20, svg.number(tick), fill=svg.SOFT, anchor="middle", size=12)
            last = x(tick)
    yield svg.text(RIGHT, BOTTOM + 38, chart["x"]["label"], fill=svg.SOFT, anchor="end", size=12)
    yield svg.text(LEFT - 38, TOP - 13, chart["y"]["label"], fill=svg.SOFT, size=12)


def _lines(chart: Chart, x: Axis, y: Axis) -> Iterator[str]:
    ends = []
    for place, line in enumerate(chart["lines"]):
        colour = line.get("colour") or svg.COLOURS[place % len(svg.COLOURS)]
        path = [(x(at), y(value)) for at, value in line["points"]]
        dashed, few = bool(line.get("dashed")), len(path) <= MANY
        yield svg.stroke(path, colour, width=2.5 if few and not dashed else 1.5, dashed=dashed)
        if few and not dashed:
            yield from (svg.dot(*point, colour) for point in path)
        ends.append((path[-1], line["name"], colour))
    for (end_x, _), label_y, name, colour in _spread(ends):
        yield svg.text(end_x + 10, label_y + 4, name, fill=colour, weight=600, size=12)


def _spread(
    ends: list[tuple[tuple[float, float], str, str]],
) -> Iterator[tuple[tuple[float, float], float, str, str]]:
    """The names from above to below, moved down where they would touch, and up again where they would leave."""
    ordered = sorted(ends, key=lambda end: end[0][1])
    places: list[float] = []
    for (_, at), _, _ in ordered:
        places.append(max(at, places[-1] + APART) if places else at)
    over = max(0.0, places[-1] - BOTTOM)
    for index in range(len(places) - 1, -1, -1):
        below = places[index + 1] - APART if index + 1 < len(places) else math.inf
        places[index] = min(places[index] - (over if index + 1 == len(places) else 0.0), below)
    for (end, name, colour), place in zip(ordered, places, strict=True):
        yield end, place, name, colour
