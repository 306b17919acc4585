"""What one worker says of itself: its counters over the window, and the points that its kind's line learns from."""

from dataclasses import dataclass
from typing import Final

from shared.messages import Epoch, Role, Status, Work
from shared.policy.steering.capability import PromptTime, StepTime
from shared.policy.steering.window import STEPS, Row

MICRO: Final = 1_000_000
PROMPTS: Final = 4
"""Prompts that a point of a prefill stands for, at least: a single one says more about its length than its speed."""
TOKENS: Final = 64
"""Generated tokens that a point of a decode stands for, at least."""

KV_WEIGHT: Final = 0.05
"""Of the newest status in the mean KV per sequence."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters, and what was held at that moment."""

    work: Work
    used: int  # slots


@dataclass(slots=True)
class Shape:
    """What is learnt of one kind of engine: all instances of a strategy and a revision are alike."""

    prompt: PromptTime
    step: StepTime


class Worker:
    """One instance in one of its lives. Bounded."""

    def __init__(self, status: Status, window_s: float) -> None:
        self.epoch: Epoch = status.epoch
        self.role: Role = status.role
        self.group = status.group
        self.revision = status.revision
        self.slots = status.slots
        self._number = status.number
        self._window_s = window_s
        self._kv_most = 0  # free bytes at the emptiest moment seen
        self._kv_used = 0.0  # mean, while slots are used
        self._used = 0.0
        self._point: Work | None = None  # counters at the last point of the line
        self._point_at = 0.0
        self.row: Row[Sample] = Row(window_s)

    def same_life(self, status: Status) -> bool:
        """Whether the counters of a status go on from what we have."""
        return (status.epoch, status.role, status.group) == (self.epoch, self.role, self.group) and (
            self.row.last is None or status.work is None or not _shrank(status.work, self.row.last.work)
        )

    def late(self, status: Status) -> bool:
        """Whether a status was overtaken by a newer one."""
        return (status.epoch, status.number) <= (self.epoch, self._number) if status.number else False

    def see(self, status: Status, work: Work, now: float, shape: Shape) -> None:
        """Take a status in."""
        self.slots, self._number = status.slots, status.number
        used = max(0, status.slots - status.free)
        self._kv_most = max(self._kv_most, status.kv_free_bytes)
        if used:
            self._used += KV_WEIGHT * (used - self._used)
            self._kv_used += KV_WEIGHT * (self._kv_most - status.kv_free_bytes - self._kv_used)
        self.row.add(Sample(work, used), now)
        if self._point is None:
            self._point, self._point_at = work, now
        elif now - self._point_at >= self._window_s / STEPS:
            self._learn(self._point, work, now, shape)

    def _learn(self, old: Work, new: Work, now: float, shape: Shape) -> None:
        """Make a point out of what was done since the last, once it is enough."""
        busy, slot = (new.busy_us - old.busy_us) / MICRO, (new.slot_us - old.slot_us) / MICRO
        tokens, passed = new.tokens - old.tokens, new.passed - old.passed
        if self.role is Role.PREFILL:
            if passed < PROMPTS:
                return
            if busy > 0.0 and slot > 0.0 and tokens > 0:
                shape.prompt.add(slot / busy, busy / tokens, tokens, now)
        else:
            if tokens < TOKENS:
                return
            if busy > 0.0 and slot > 0.0:
                shape.step.add(slot / busy, slot / tokens, tokens, now)
        self._point, self._point_at = new, now

    def full(self) -> float:
        """Sequences that a decode can have in its batch: its slots, or fewer where its KV memory ends before."""
        if self._kv_used <= 0.0 or self.row.last is None:
            return float(self.slots)
        room = self._kv_most * self._used / self._kv_used
        return min(float(self.slots), max(float(self.row.last.used), room))


def _shrank(new: Work, old: Work) -> bool:
    return new.busy_us < old.busy_us or new.passed < old.passed or new.tokens < old.tokens
