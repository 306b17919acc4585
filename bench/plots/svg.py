"""Pieces of a drawing: a light card with a title and, at its foot, where its figures were measured.

The card is light on every page, so that what is drawn on it can be read on dark ones too.
"""

from collections.abc import Iterable
from html import escape
from typing import Final

WIDTH: Final = 760
INK: Final = "#0f172a"
SOFT: Final = "#64748b"
FAINT: Final = "#e2e8f0"
FONT: Final = 'font-family="ui-sans-serif, system-ui, sans-serif" font-size="13"'
COLOURS: Final = ("#c2410c", "#0f766e", "#1d4ed8", "#7e22ce", "#475569")
"""The first is ours."""


def card(height: float, title: str, subtitle: str, foot: str, inside: Iterable[str]) -> str:
    """The whole picture."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" {FONT}>',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height:g}" rx="14" fill="#f8fafc"/>',
            text(28, 36, title, size=17, weight=600),
            text(28, 57, subtitle, fill=SOFT),
            *inside,
            text(28, height - 16, foot, fill=SOFT, size=11),
            "</svg>\n",
        ]
    )


def text(
    x: float, y: float, said: str, *, fill: str = INK, size: float = 13, anchor: str = "start", weight: int = 400
) -> str:
    """A line of text; its baseline begins there, or ends there, or has its middle there."""
    more = f' text-anchor="{anchor}"' if anchor != "start" else ""
    more += f' font-weight="{weight}"' if weight != 400 else ""
    more += f' font-size="{size:g}"' if size != 13 else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}"{more}>{escape(said)}</text>'


def stroke(points: Iterable[tuple[float, float]], colour: str, *, width: float = 1.0, dashed: bool = False) -> str:
    """A line through the points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    more = ' stroke-dasharray="5 5"' if dashed else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}" '
        f'stroke-linejoin="round" stroke-linecap="round"{more}/>'
    )


def dot(x: float, y: float, colour: str) -> str:
    """A measured point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}" stroke="#f8fafc" stroke-width="1.5"/>'


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A bar with soft corners."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" fill="{colour}"/>'


def number(value: float) -> str:
    """As short as it can be said: 0.35, 12, 1,200, 20k; tokens by 1024, as 4k."""
    if value >= 1024 and value % 1024 == 0:
        return f"{value / 1024:g}k"
    if value >= 10_000:
        return f"{value / 1000:.3g}k"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
