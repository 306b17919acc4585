"""Instances that are lost again and again: each time they come back they take requests down with them.

Owns the judgement that an instance has been lost too often lately. Bounded: of so many instances, the latest ones.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from shared.policy.fleet.events import FleetRules
from shared.policy.recent import Recent

REMEMBERED: Final = 4096


@dataclass(slots=True)
class _Record:
    losses: deque[float]
    holds: int = 0
    until: float = 0.0


class Flapping:
    """The latest losses by name. `held` says whether one is to be left alone for now."""

    def __init__(self, rules: FleetRules) -> None:
        self._rules = rules
        self._records: Recent[str, _Record] = Recent(REMEMBERED)

    def lost(self, instance: str, now: float) -> float | None:
        """Note a loss; for how many seconds it is held off because of it, if it is."""
        record = self._records.get(instance) or _Record(deque(maxlen=self._rules.flaps))
        self._records.put(instance, record)
        calm = now - max(record.until, record.losses[-1] if record.losses else now)
        if calm > self._rules.flap_window_s:
            record.holds = 0
        record.losses.append(now)
        if len(record.losses) < self._rules.flaps or now - record.losses[0] > self._rules.flap_window_s:
            return None
        seconds = min(self._rules.hold_off_max_s, self._rules.hold_off_s * 2.0 ** min(record.holds, 30))
        record.holds += 1
        record.until = now + seconds
        return seconds

    def held(self, instance: str, now: float) -> bool:
        """Whether it gets no place now."""
        record = self._records.get(instance)
        return record is not None and now < record.until
