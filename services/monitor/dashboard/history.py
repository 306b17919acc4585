"""The last minutes of each scenario in a few numbers, so that a fresh page is not empty. Pure, and bounded."""

from collections import deque
from typing import Final, TypedDict

from services.monitor.dashboard.parts import Snapshot

STEP_S: Final = 2.0
POINTS: Final = 150
"""Five minutes."""


class Point(TypedDict):
    """One scenario at one moment. None: nothing was measured then."""

    at: int  # unix seconds
    arriving: float | None
    finished: float | None
    waiting: int | None
    ttft: float | None  # share within the objective
    tpot: float | None
    bytes: int  # per second over all links


class History:
    """The points of every scenario that is there."""

    def __init__(self) -> None:
        self._points: dict[str, deque[Point]] = {}
        self._last = float("-inf")

    def see(self, parts: Snapshot, now: float, at: float) -> dict[str, Point]:
        """Add a point for each scenario when a step has passed, and return those. `at` is unix time."""
        if now - self._last < STEP_S:
            return {}
        self._last = now
        fresh = points(parts, int(at))
        self._points = {name: self._points.get(name, deque(maxlen=POINTS)) for name in fresh}
        for name, point in fresh.items():
            self._points[name].append(point)
        return fresh

    def all(self) -> dict[str, list[Point]]:
        """Return every scenario's points, oldest first."""
        return {name: list(row) for name, row in self._points.items()}


def points(parts: Snapshot, at: int) -> dict[str, Point]:
    """Take one point of each scenario."""
    moved: dict[str, int] = {}
    for part in parts.values():
        if "links" in part:
            moved[part["scenario"]] = moved.get(part["scenario"], 0) + part["bytes_per_s"]
    return {
        part["name"]: {
            "at": at,
            "arriving": part["arriving_per_s"] if part["known"] else None,
            "finished": part["finished_per_s"] if part["known"] else None,
            "waiting": part["waiting"] if part["known"] else None,
            "ttft": part["ttft"]["within"] if part["ttft"]["count"] else None,
            "tpot": part["tpot"]["within"] if part["tpot"]["count"] else None,
            "bytes": moved.get(part["name"], 0),
        }
        for part in parts.values()
        if "advice" in part
    }
