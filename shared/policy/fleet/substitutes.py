"""Standbys and workers on their way to a place: each hole gets one, and the next only when that one has failed.

Owns who was sent where, until when each must have come, and the pause after a failure.
"""

from collections import Counter
from dataclasses import dataclass

from shared.messages import Epoch
from shared.policy.deadlines import Deadlines
from shared.policy.fleet.events import FleetRules, Place


@dataclass(slots=True)
class Sent:
    """A standby or worker that was sent to a place."""

    place: Place
    ready_by: float
    epoch: Epoch  # of the life in which it got the order
    was: Place | None = None  # where a worker leaves from, None: it was a standby
    accepted: bool = False
    doubted: float | None = None  # since when it is not known whether it heard the order
    left: bool = False  # the worker holds nothing any more
    begun: bool = False  # seen in its new role
    orders: int = 1


class Substitutes:
    """Who is on the way. It counts for its place from the order to its arrival or failure."""

    def __init__(self, rules: FleetRules) -> None:
        self._rules = rules
        self._sent: dict[str, Sent] = {}
        self._on_the_way: Counter[Place] = Counter()
        self._leaving: Counter[Place] = Counter()  # workers that have not finished what they hold there
        self._limits: Deadlines[str] = Deadlines()
        self._failures: Counter[Place] = Counter()
        self._pauses: Deadlines[Place] = Deadlines()

    def get(self, instance: str) -> Sent | None:
        """Return the order of one that is on its way."""
        return self._sent.get(instance)

    def on_the_way(self, place: Place) -> int:
        """Count those sent to the place."""
        return self._on_the_way[place]

    def paused(self, place: Place) -> bool:
        """Whether the last one failed a moment ago."""
        return place in self._pauses

    def leaving(self, place: Place) -> int:
        """Count the workers with an order that still finish what they hold there."""
        return self._leaving[place]

    def send(self, instance: str, epoch: Epoch, place: Place, now: float, *, was: Place | None = None) -> None:
        """Note the order. Its answer is due soon, its first word in the new role later, its readiness last.

        A worker finishes what it holds before its first word.
        """
        sent = Sent(place, now + self._rules.ready_s, epoch, was)
        if was is not None:
            sent.ready_by += self._rules.drain_s
            self._leaving[was] += 1
        self._sent[instance] = sent
        self._on_the_way[place] += 1
        self._limits.set(instance, now + self._rules.assign_s + self._begin_s(sent))

    def adopt(self, instance: str, epoch: Epoch, place: Place, now: float) -> None:
        """Count a worker that starts without an order of ours: by its own supervisor, or by an earlier leader."""
        self._sent[instance] = Sent(place, now + self._rules.ready_s, epoch, accepted=True, begun=True)
        self._on_the_way[place] += 1
        self._limits.set(instance, now + self._rules.ready_s)

    def accepted(self, instance: str, now: float) -> None:
        """Note that it has understood."""
        if (sent := self._sent.get(instance)) and not sent.accepted:
            sent.accepted = True
            sent.doubted = None
            if not sent.begun:
                self._limits.set(instance, now + self._begin_s(sent))

    def finished(self, instance: str, now: float) -> None:
        """Note, once, that a worker holds nothing any more where it was: what is left is to begin."""
        if (sent := self._sent.get(instance)) and sent.was is not None and not (sent.begun or sent.left):
            sent.accepted = True
            sent.doubted = None
            self._left(sent)
            self._limits.set(instance, now + self._rules.begin_s)

    def doubted(self, instance: str, now: float) -> None:
        """Note that its answer is missing: it may have understood all the same."""
        if (sent := self._sent.get(instance)) and not sent.accepted and not sent.begun:
            sent.doubted = now
            self._limits.set(instance, now + self._rules.doubt_s + (0.0 if sent.was is None else self._rules.drain_s))

    def begun(self, instance: str) -> None:
        """Note that it was seen in its new role; from now on its silence counts."""
        if (sent := self._sent.get(instance)) and not sent.begun:
            sent.begun = True
            self._left(sent)
            self._limits.set(instance, sent.ready_by)

    def send_again(self, instance: str, now: float) -> bool:
        """Whether one that still speaks as what it was, though its answer is overdue, is to get its order once more.

        Another standby must not get it: the first order may be on its way yet. After so many orders it has failed.
        """
        sent = self._sent.get(instance)
        if sent is None or sent.doubted is None or now - sent.doubted < 2 * self._rules.heartbeat_s:
            return False
        sent.orders += 1
        sent.doubted = None
        self._limits.set(instance, now + self._rules.assign_s + self._rules.doubt_s)
        return True

    def arrived(self, instance: str, place: Place) -> Place | None:
        """Strike it off if it was on its way: it is a member now. Its place has its luck back. Where it was sent."""
        sent = self._drop(instance)
        if sent is None:
            return None
        self._failures.pop(place, None)
        return sent.place

    def failed(self, instance: str, now: float, *, pause: bool = True) -> Place | None:
        """Strike it off, and pause unless it never went; the place that needs another."""
        sent = self._drop(instance)
        if sent is None:
            return None
        if not pause:
            return sent.place
        pause_s = min(self._rules.retry_max_s, self._rules.retry_s * 2.0 ** min(self._failures[sent.place], 30))
        self._failures[sent.place] += 1
        self._pauses.set(sent.place, now + pause_s)
        return sent.place

    def late(self, now: float) -> list[str]:
        """Name those whose time is up; each has then failed."""
        return self._limits.due(now)

    def rested(self, now: float) -> list[Place]:
        """Name the places whose pause is over."""
        return self._pauses.due(now)

    def next_deadline(self) -> float | None:
        """Say when `late` or `rested` should be asked next."""
        return min((at for at in (self._limits.next(), self._pauses.next()) if at is not None), default=None)

    def _drop(self, instance: str) -> Sent | None:
        sent = self._sent.pop(instance, None)
        if sent is not None:
            self._on_the_way[sent.place] -= 1
            self._left(sent)
            self._limits.drop(instance)
        return sent

    def _left(self, sent: Sent) -> None:
        if sent.was is not None and not sent.left:
            sent.left = True
            self._leaving[sent.was] -= 1

    def _begin_s(self, sent: Sent) -> float:
        return self._rules.begin_s + (0.0 if sent.was is None else self._rules.drain_s)
