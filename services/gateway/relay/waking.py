"""Wakes the dispatcher when it wants to be woken. Owns the one timer."""

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Final

LATEST_TICK_S: Final = 1.0
"""The dispatcher hears of time at least so often."""


class Waking:
    """One per relay."""

    def __init__(self, next_deadline: Callable[[], float | None], tick: Callable[[], None]) -> None:
        self._next_deadline = next_deadline
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = 0.0  # when the timer is due
        self._nobodys = contextvars.copy_context()  # what the timer does is about no request

    def arm(self) -> None:
        """Set the timer anew. One that comes before that is left to find out."""
        now, due = time.monotonic(), self._next_deadline()
        wakes = now + LATEST_TICK_S if due is None else min(now + LATEST_TICK_S, max(now, due))
        if self._timer is not None:
            if self._wakes <= wakes:
                return
            self._timer.cancel()
        self._wakes = wakes
        self._timer = asyncio.get_running_loop().call_later(wakes - now, self._fire, context=self._nobodys)

    def _fire(self) -> None:
        self._timer = None
        self._tick()

    def stop(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
