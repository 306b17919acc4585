"""A chart of bars, each with its value beside it. Pure, as `chart` is.

Of shares of one, with a mark where each is aimed at: `{"title", "subtitle", "bars": [{"name", "share", "said", "aim"?},
...], "place"}`. Of anything else: `{..., "bars": [{"name", "value", "said"?, "colour"?}, ...], "x": {"label"}}`, from 0
to a round number beyond the largest; `colour` is a place in the palette. A `"foot"` may stand for the place.
"""

from collections.abc import Iterator
from typing import Any, Final

from bench.plots import svg
from bench.plots.chart import foot, round_numbers

LEFT: Final = 190.0
FULL: Final = 380.0
TOP: Final = 84.0
EACH: Final = 34.0
THICK: Final = 20.0


def draw(chart: dict[str, Any]) -> str:
    """The picture."""
    height = TOP + EACH * len(chart["bars"]) + (80 if "x" in chart else 64)
    inside = [*_numbers(chart)] if "x" in chart else [*_shares(chart)]
    return svg.card(height, chart["title"], chart["subtitle"], foot(chart), inside)


def _shares(chart: dict[str, Any]) -> Iterator[str]:
    yield from _grid([(share, f"{share:.0%}") for share in (0.25, 0.5, 0.75, 1.0)], len(chart["bars"]))
    for place, one in enumerate(chart["bars"]):
        share = min(1.0, one["share"])
        yield from _bar(place, one["name"], share)
        if aim := one.get("aim"):
            at, y = LEFT + FULL * aim, TOP + EACH * place
            yield svg.stroke([(at, y - 3), (at, y + THICK + 3)], svg.INK, width=2)
        yield _beside(place, max(share, aim or 0.0), f"{one['share']:.0%}, {one['said']}")


def _numbers(chart: dict[str, Any]) -> Iterator[str]:
    bars = chart["bars"]
    ticks = round_numbers(0.0, max(one["value"] for one in bars))
    full = ticks[-1]
    yield from _grid([(tick / full, svg.number(tick)) for tick in ticks], len(bars))
    for place, one in enumerate(bars):
        share = one["value"] / full
        yield from _bar(place, one["name"], share, svg.COLOURS[one.get("colour", 0)])
        yield _beside(place, share, one.get("said") or svg.number(one["value"]))
    bottom = TOP + EACH * len(bars)
    yield svg.text(LEFT + FULL, bottom + 38, chart["x"]["label"], fill=svg.SOFT, anchor="end", size=12)


def _grid(ticks: list[tuple[float, str]], bars: int) -> Iterator[str]:
    bottom = TOP + EACH * bars
    for share, said in ticks:
        at = LEFT + FULL * share
        yield svg.stroke([(at, TOP - 8), (at, bottom)], svg.FAINT)
        yield svg.text(at, bottom + 18, said, fill=svg.SOFT, anchor="middle", size=12)


def _bar(place: int, name: str, share: float, colour: str = svg.COLOURS[0]) -> Iterator[str]:
    y = TOP + EACH * place
    yield svg.text(LEFT - 12, y + 15, name, anchor="end")
    yield svg.bar(LEFT, y, max(2.0, FULL * share), THICK, colour)


def _beside(place: int, share: float, said: str) -> str:
    return svg.text(LEFT + FULL * share + 10, TOP + EACH * place + 15, said, size=12)
