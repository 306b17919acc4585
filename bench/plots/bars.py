"""A chart of shares: one bar for each, its value beside it, and a mark where it is aimed at. Pure, as `chart` is.

`{"title", "subtitle", "bars": [{"name", "share", "said", "aim"?}], "place"}`; shares are of one.
"""

from collections.abc import Iterator
from typing import Any, Final

from bench.place import caption
from bench.plots import svg

LEFT: Final = 190.0
FULL: Final = 380.0
TOP: Final = 84.0
EACH: Final = 34.0
THICK: Final = 20.0


def draw(chart: dict[str, Any]) -> str:
    """The picture."""
    height = TOP + EACH * len(chart["bars"]) + 64
    inside = list(_bars(chart))
    return svg.card(height, chart["title"], chart["subtitle"], caption(chart["place"]), inside)


def _bars(chart: dict[str, Any]) -> Iterator[str]:
    bottom = TOP + EACH * len(chart["bars"])
    for share in (0.25, 0.5, 0.75, 1.0):
        at = LEFT + FULL * share
        yield svg.stroke([(at, TOP - 8), (at, bottom)], svg.FAINT)
        yield svg.text(at, bottom + 18, f"{share:.0%}", fill=svg.SOFT, anchor="middle", size=12)
    for place, one in enumerate(chart["bars"]):
        y = TOP + EACH * place
        yield svg.text(LEFT - 12, y + 15, one["name"], anchor="end")
        yield svg.bar(LEFT, y, max(2.0, FULL * min(1.0, one["share"])), THICK, svg.COLOURS[0])
        if aim := one.get("aim"):
            at = LEFT + FULL * aim
            yield svg.stroke([(at, y - 3), (at, y + THICK + 3)], svg.INK, width=2)
        beside = LEFT + FULL * max(min(1.0, one["share"]), aim or 0.0) + 10
        yield svg.text(beside, y + 15, f"{one['share']:.0%}, {one['said']}", size=12)
