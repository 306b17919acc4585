"""Keeps every open page fresh: looks about once a second and tells each viewer what changed.

Owns the viewers and their bounded queues. A viewer that cannot keep up gets the whole again instead of what it missed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from services.monitor.dashboard.figures import SeeHappenings
from services.monitor.dashboard.history import History
from services.monitor.dashboard.parts import Snapshot
from shared.errors import Overloaded
from shared.messages import Happening

LOOK_S: Final = 1.0
SHARE: Final = 10
"""A look may take one part in so many of the time: a huge fleet is looked at less often."""
HEARTBEAT_S: Final = 10.0
"""A viewer hears at least a comment so often: proxies cut what is silent."""
MOST_VIEWERS: Final = 64
MOST_FRAMES: Final = 16
"""Waiting for one viewer."""
MOST_HAPPENINGS: Final = 300
"""Shown on a page."""

log = logging.getLogger(__name__)

Look = Callable[[float], Snapshot]
"""Takes the monotonic time, returns what there is to see."""


class Viewer:
    """One open page. `next` gives its frames, and None at the end."""

    def __init__(self, live: "Live", first: bytes) -> None:
        self._live = live
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_FRAMES)
        self._frames.put_nowait(first)
        self._behind = False

    @property
    def waiting(self) -> int:
        """Count the frames that were not taken yet."""
        return self._frames.qsize()

    def tell(self, frame: bytes | None) -> None:
        """Queue a frame. Never blocks."""
        if self._frames.full():
            while not self._frames.empty():
                _ = self._frames.get_nowait()
            self._behind = True
        self._frames.put_nowait(frame)

    async def next(self) -> bytes | None:
        """Wait for the next frame; after a silence it is a comment."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                frame = await self._frames.get()
        except TimeoutError:
            return b": still here\n\n"
        if frame is not None and self._behind:
            self._behind = False
            return self._live.first_frame()
        return frame


class Live:
    """What all viewers share."""

    def __init__(
        self,
        look: Look,
        happenings: SeeHappenings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._look = look
        self._happenings = happenings
        self._clock = clock
        self._wall = wall
        self._parts: Snapshot = {}
        self._history = History()
        self._told: dict[str, Happening] = {}  # by id, oldest first
        self._viewers: set[Viewer] = set()

    @property
    def viewers(self) -> int:
        """Count the open pages."""
        return len(self._viewers)

    async def keep(self) -> None:
        """Look again and again. For ever."""
        while True:
            begun = time.perf_counter()
            try:
                self.look()
            except Exception:  # a page that stands still says nothing of why
                log.exception("the dashboard could not look")
            await asyncio.sleep(max(LOOK_S, SHARE * (time.perf_counter() - begun)))

    def look(self) -> None:
        """Look once, and tell the viewers what is new."""
        parts = self._look(self._clock())
        changed = {name: part for name, part in parts.items() if self._parts.get(name) != part}
        gone = [name for name in self._parts if name not in parts]
        self._parts = parts
        points = self._history.see(parts, self._clock(), self._wall())
        told, self._told = self._told, numbered(self._happenings()[-MOST_HAPPENINGS:])
        if not self._viewers:
            return
        state = {"at": self._at(), "changed": changed, "gone": gone, "points": points}
        frames = [_frame("state", state)]
        frames += [_frame("happening", _shown(name, one), name) for name, one in self._told.items() if name not in told]
        for viewer in self._viewers:
            for frame in frames:
                viewer.tell(frame)

    def whole(self, after: str = "") -> dict[str, Any]:
        """Return all there is to see, the happenings only from those after the one of that id."""
        names = list(self._told)
        if after in self._told:
            names = names[names.index(after) + 1 :]
        happenings = [_shown(name, self._told[name]) for name in names]
        history = self._history.all()
        return {"at": self._at(), "parts": self._parts, "history": history, "happenings": happenings}

    def first_frame(self, after: str = "") -> bytes:
        """Return what a page begins with."""
        return b"retry: 2000\n" + _frame("whole", self.whole(after), next(reversed(self._told), ""))

    def admit(self, after: str = "") -> Viewer:
        """Let a page in; `after` is the id of the last happening that it has. Raises Overloaded."""
        if len(self._viewers) >= MOST_VIEWERS:
            raise Overloaded(
                f"{MOST_VIEWERS} pages are open at this monitor already; close one, or use another monitor"
            )
        viewer = Viewer(self, self.first_frame(after))
        self._viewers.add(viewer)
        return viewer

    def dismiss(self, viewer: Viewer) -> None:
        """Forget a page; idempotent."""
        self._viewers.discard(viewer)

    def close(self) -> None:
        """End every page's stream; they come back to whoever serves the address then."""
        for viewer in self._viewers:
            viewer.tell(None)

    def _at(self) -> int:
        return int(self._wall() * 1000)


def numbered(happenings: Sequence[Happening]) -> dict[str, Happening]:
    """Give each an id that is the same at every monitor: its time, and its place among those of the same time."""
    places: dict[int, int] = {}
    named = {}
    for one in happenings:
        place = places.get(one.at_ms, 0)
        places[one.at_ms] = place + 1
        named[f"{one.at_ms}-{place}"] = one
    return named


def _shown(name: str, one: Happening) -> dict[str, Any]:
    return {"id": name, "at": one.at_ms, "scenario": one.scenario, "kind": one.kind, "text": one.text}


def _frame(event: str, data: object, name: str = "") -> bytes:
    number = f"id: {name}\n" if name else ""
    return f"event: {event}\n{number}data: ".encode() + msgspec.json.encode(data) + b"\n\n"
