"""What follows when an instance is lost or leaves: out of the map first, then a note, and its hole is owed.

Owns which losses are for good. Who is lost is judged elsewhere; who comes instead is `staffing`'s business.
"""

from typing import Final

from shared.policy.fleet.events import Cause, HeldOff, Retire, SendDrain
from shared.policy.fleet.parts import Parts

FENCING: Final = frozenset(
    {Cause.LEASE_LOST, Cause.REFUSED, Cause.STUCK, Cause.TOO_SLOW, Cause.UNREACHABLE, Cause.SICK}
)
"""Losses after which that incarnation never comes back. One that was only silent may."""
SENT_AWAY: Final = frozenset({Cause.STUCK, Cause.TOO_SLOW, Cause.UNREACHABLE, Cause.SICK})
"""Losses of one that still speaks: it is told to stop."""


class Losses:
    """Removes instances."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def lose(self, instance: str, cause: Cause, now: float) -> None:
        """Remove one that is taken for lost from everything, the map first."""
        parts = self._parts
        seen, sent = parts.census.get(instance), parts.substitutes.get(instance)
        if seen is None and sent is None and parts.groups.place(instance) is None:
            return
        epoch = parts.census.epoch(instance)
        if cause in FENCING:
            parts.census.fence(instance, epoch)
        parts.census.forget(instance)
        parts.spares.unavailable(instance)
        parts.staffing.leaving.pop(instance, None)
        self.leave(instance, cause, now)
        self.fail(instance, now, cause)
        if parts.leading:
            parts.notes.append(Retire(instance, epoch, cause))
            if seen is not None and cause in SENT_AWAY:
                parts.notes.append(SendDrain(instance, cause))
        self.count(instance, now)

    def count(self, instance: str, now: float) -> None:
        """Note one more loss of an instance; it may be one too many."""
        seconds = self._parts.flapping.lost(instance, now)
        if seconds is not None and self._parts.leading:
            self._parts.notes.append(HeldOff(instance, self._parts.rules.flaps, seconds))

    def leave(self, instance: str, cause: Cause, now: float) -> None:
        """Strike a member off the map; its place is owed another."""
        parts = self._parts
        if parts.leading and (place := parts.groups.leave(instance, cause)) is not None:
            parts.staffing.lost(instance, place, cause, now)

    def fail(self, instance: str, now: float, cause: Cause = Cause.MISSING, *, pause: bool = True) -> None:
        """Give a substitute up; another is sent, after a pause unless it never went."""
        sent = self._parts.substitutes.get(instance)
        if sent is not None and sent.was is not None:
            self._parts.groups.touch((sent.was.scenario, sent.was.group))  # it holds nothing there any more
        self._parts.steps.fail(instance)
        self._parts.holes.check(self._parts.substitutes.failed(instance, now, pause=pause), cause=cause)
