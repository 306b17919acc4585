"""One process's wish to stop: whether, why, how fast, and whether it counts as a failure."""

import asyncio
from collections.abc import Callable


class Stopping:
    """Asked once, hurried by the second ask. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()  # skip the drain
        self.reason = ""
        self.failed = False
        self.drain_s: float | None = None  # None: as configured
        self.when_asked: Callable[[], None] | None = None

    def ask(self, reason: str, *, failed: bool = False, drain_s: float | None = None) -> None:
        """Begin an orderly stop; a failed instance does not drain. Later reasons do not replace the first."""
        if not self.asked.is_set():
            self.reason = reason
            self.drain_s = drain_s
            self.asked.set()
            if self.when_asked is not None:
                self.when_asked()
        if failed:
            self.failed = True
            self.at_once.set()

    def signalled(self, name: str) -> None:
        """Ask for an orderly stop; a second signal ends the drain, which is then no clean stop."""
        if self.asked.is_set():
            self.failed = True
            self.at_once.set()
        else:
            self.ask(f"received {name}")
