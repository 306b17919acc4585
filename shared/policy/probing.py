"""Which instances to ask for a sign of life now, and what it means that NATS says nobody is there.

Owns, for each instance that holds something of ours, when it was heard last and since when nobody listens in its name.
NATS drops the subscriptions of a process that died with its connection, long before its heartbeats are missed. One
word proves nothing, since whoever reconnects is away for a moment; two of them with silence in between do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Final

from shared.policy.hearing import ROUNDING_S
from shared.policy.recent import Recent

REMEMBERED: Final = 65_536
"""Instances of which it is remembered when they were heard; a forgotten one is asked once more than it need be."""


@dataclass(frozen=True, slots=True)
class ProbeRules:
    """How soon to ask, and how much to believe of the answer."""

    quiet_s: float = 0.15  # not heard for so long: ask, and ask again so often
    confirm_s: float = 0.1  # between the first word that nobody is there and the one that counts
    settle_s: float = 3.0  # after our connection came back: the others' may take longer


class Presence(Enum):
    """What NATS's word says about an instance."""

    AS_BEFORE = auto()  # nothing new: the bus itself was away, or the word came too soon after the first
    DOUBTED = auto()  # the first such word
    GONE = auto()


class Probing:
    """Cheap: `heard` comes with each frame, `due` looks at those who hold something."""

    def __init__(self, rules: ProbeRules | None = None) -> None:
        self._rules = rules or ProbeRules()
        self._heard: Recent[str, float] = Recent(REMEMBERED)
        self._asked: dict[str, float] = {}
        self._missed: dict[str, float] = {}  # since when nobody listens
        self._settled_at = -inf

    def heard(self, instance: str, now: float) -> None:
        """Note a sign of life: a status, a frame, an answer."""
        self._heard.put(instance, now)
        self._missed.pop(instance, None)

    def bus(self, now: float, *, up: bool) -> None:
        """Note that our connection went or came."""
        self._settled_at = now + self._rules.settle_s if up else inf
        self._missed.clear()

    def due(self, now: float, held: Iterable[str]) -> list[str]:
        """Name those of the holders that are to be asked now, and take it that they are."""
        if now < self._settled_at:
            return []
        due: list[str] = []
        asked: dict[str, float] = {}
        for instance in held:
            before = self._asked.get(instance, -inf)
            heard = self._heard.get(instance)
            last = before if heard is None else max(before, heard)
            if now - last >= self._rules.quiet_s - ROUNDING_S:
                due.append(instance)
                before = now
            if before > -inf:
                asked[instance] = before
        self._asked = asked
        return due

    def nobody(self, instance: str, now: float) -> Presence:
        """Take in NATS's word that nobody listens in the instance's name."""
        if now < self._settled_at:
            return Presence.AS_BEFORE
        since = self._missed.get(instance)
        if since is None:
            self._missed[instance] = now
            return Presence.DOUBTED
        return Presence.GONE if now - since >= self._rules.confirm_s - ROUNDING_S else Presence.AS_BEFORE

    def forget(self, instance: str) -> None:
        """Note that it is lost: another life of it begins anew."""
        self._missed.pop(instance, None)
