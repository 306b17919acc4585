"""One process's wish to stop: whether, why, how fast, and whether it counts as a failure."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from shared.errors import BadRequest

LONGEST_DRAIN_S: Final = 3600.0


class Stopping:
    """Asked once, hurried by the second ask. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()  # skip the drain
        self.reason = ""
        self.failed = False
        self.passing = False  # the process goes on as something else
        self.drain_s: float | None = None  # None: as configured
        self.when_asked: Callable[[], None] | None = None

    def ask(self, reason: str, *, failed: bool = False, drain_s: float | None = None, passing: bool = False) -> None:
        """Begin an orderly stop; a failed instance does not drain. Later reasons do not replace the first.

        But for one: who was only `passing`, to become something else, stops for good when somebody asks for that.
        """
        if self.passing and not passing:
            self.passing, self.reason = False, reason
        if not self.asked.is_set():
            self.reason = reason
            self.passing = passing
            self.drain_s = drain_s
            self.asked.set()
            if self.when_asked is not None:
                self.when_asked()
        if failed:
            self.failed = True
            self.at_once.set()

    def signalled(self, name: str) -> None:
        """Ask for an orderly stop; a second signal ends the drain, which is then no clean stop."""
        if self.asked.is_set() and not self.passing:
            self.failed = True
            self.at_once.set()
        else:
            self.ask(f"received {name}")


def checked_drain(seconds: float) -> float:
    """Return the seconds of an order as they are. Raises BadRequest when nobody can mean them."""
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_DRAIN_S:
        raise BadRequest(f"seconds is {seconds}; give 0 to {LONGEST_DRAIN_S:g}", "seconds")
    return seconds
