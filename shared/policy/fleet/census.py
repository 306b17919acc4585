"""Who is there, as the monitor sees it: the last word of each instance, its silence, its standstill, its lease.

Owns the judgement that an instance is lost. What follows from a loss is not its business.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.messages import Epoch, Health, InstanceRecord, Role, State, Status
from shared.policy.deadlines import Deadlines
from shared.policy.fleet.events import Cause, FleetRules, Place
from shared.policy.hearing import ROUNDING_S, Hearing
from shared.policy.recent import Recent

REMEMBERED: Final = 65_536
"""Instances whose highest epoch and fence are kept after they are gone."""
FRESH_BEATS: Final = 1.5
"""Who was heard within so many heartbeats speaks still."""
WORKERS: Final = (Role.PREFILL, Role.DECODE)


@dataclass(slots=True)
class Seen:
    """An instance as it was heard last."""

    instance: str
    epoch: Epoch
    role: Role
    state: State
    scenario: str
    group: str
    heard: float
    number: int = 0
    steps: int = 0
    stepped: float = 0.0  # when its steps moved last, or it was idle
    health: Health = Health.OK
    revision: int = 0
    load: int = 0  # slots in use
    life: Epoch = (0, 0)  # of its process, when it was heard first: a lease may be lost and taken again under another

    def place(self, default_group: str) -> Place | None:
        """Return where it works or is about to; None: it is no worker."""
        if self.role not in WORKERS or not self.scenario:
            return None
        return Place(self.scenario, self.group or default_group, self.role)


class Census:
    """Instances by name. `fence` keeps an epoch from ever being believed again."""

    def __init__(self, rules: FleetRules) -> None:
        self._rules = rules
        self._hearing = Hearing(rules.heartbeat_s * rules.misses)
        self._seen: dict[str, Seen] = {}
        self._epochs: Recent[str, Epoch] = Recent(REMEMBERED)
        self._fences: Recent[str, Epoch] = Recent(REMEMBERED)
        self._silence: Deadlines[str] = Deadlines()  # on the clock of silence
        self._doubts: Deadlines[str] = Deadlines()  # lost its lease, but still speaks

    def __iter__(self) -> Iterator[Seen]:
        """Iterate over those who are there; they may change meanwhile."""
        return iter(list(self._seen.values()))

    def get(self, instance: str) -> Seen | None:
        """Return what is known of one that is there."""
        return self._seen.get(instance)

    def see(self, status: Status, now: float) -> Seen | None:
        """Take in a status; None: it is older than what is known, or fenced."""
        self._hearing.heard(now)
        name, last = status.instance, self._seen.get(status.instance)
        known, fence = self._epochs.get(name), self._fences.get(name)
        if (known is not None and status.epoch < known) or (fence is not None and status.epoch <= fence):
            return None
        if last is not None and last.epoch == status.epoch and 0 < status.number <= last.number:
            return None
        self._epochs.put(name, status.epoch)
        stepped = now
        if last is not None and last.epoch == status.epoch and status.busy and status.steps == last.steps:
            stepped = last.stepped
        seen = Seen(
            name, status.epoch, status.role, status.state, status.scenario, status.group,
            now, status.number, status.steps, stepped, status.health, status.revision,
            max(0, status.slots - status.free), _life(last, status),
        )  # fmt: skip
        if last is None or last.epoch != status.epoch:
            self._doubts.drop(name)
        if status.state in (State.STOPPED, State.FAILED):
            self.forget(name)
        else:
            self._seen[name] = seen
            self.listen(name, now)
        return seen

    def recall(self, record: InstanceRecord, now: float) -> Seen | None:
        """Take in what Redis says of one that starts and was not heard by us: another leader may have sent it."""
        known = self._epochs.get(record.id)
        if record.state is not State.STARTING or (known is not None and record.epoch <= known):
            return None
        self._epochs.put(record.id, record.epoch)
        seen = Seen(record.id, record.epoch, record.role, record.state, record.scenario, record.group, now)
        seen.health, seen.revision, seen.life = record.health, record.revision, record.epoch
        self._seen[record.id] = seen
        self.listen(record.id, now)
        return seen

    def expect(self, instance: str, epoch: Epoch, now: float) -> None:
        """Start to listen for a member we have not heard yet."""
        if instance not in self._seen and instance not in self._silence:
            self._epochs.put(instance, max(epoch, self._epochs.get(instance) or epoch))
            self._silence.set(instance, self._hearing.clock(now) + self._rules.heartbeat_s * (self._rules.misses + 1))

    def listen(self, instance: str, now: float) -> None:
        """Expect its next word within the usual time from now on."""
        if seen := self._seen.get(instance):
            self._silence.set(instance, self._hearing.clock(now) + self._patience_s(seen))

    def hear(self, now: float) -> None:
        """Note that somebody was heard: whoever is silent now is so by itself."""
        self._hearing.heard(now)

    def stuck(self, seen: Seen) -> bool:
        """Whether it was busy without a step for too long, as of its last status."""
        return seen.heard - seen.stepped >= self._rules.stuck_s

    def doubt(self, instance: str, epoch: Epoch, now: float) -> bool:
        """Judge a lost lease. True: it is lost now. One that still speaks gets a moment to come with a new epoch."""
        if epoch < self.epoch(instance):
            return False
        if self.speaks(instance, now):
            if instance not in self._doubts:
                self._doubts.set(instance, now + self._rules.lease_grace_s)
            return False
        return instance not in self._doubts

    def speaks(self, instance: str, now: float) -> bool:
        """Whether it was heard a moment ago."""
        seen = self._seen.get(instance)
        return seen is not None and now - seen.heard < FRESH_BEATS * self._rules.heartbeat_s

    def lost(self, now: float) -> list[tuple[str, Cause]]:
        """Name those who are lost by silence, or by a lease they did not get back, and forget them."""
        lost = dict.fromkeys(self._silence.due(self._hearing.clock(now) + ROUNDING_S), Cause.SILENT)
        lost.update(dict.fromkeys(self._doubts.due(now), Cause.LEASE_LOST))
        return list(lost.items())

    def epoch(self, instance: str) -> Epoch:
        """Return the highest epoch known."""
        return self._epochs.get(instance) or (0, 0)

    def fence(self, instance: str, epoch: Epoch) -> None:
        """Believe nothing any more that comes under this epoch or an older one."""
        self._fences.put(instance, max(epoch, self._fences.get(instance) or epoch))

    def forget(self, instance: str) -> None:
        """Take it for gone until it is heard again."""
        self._seen.pop(instance, None)
        self.ignore_silence(instance)

    def ignore_silence(self, instance: str) -> None:
        """Expect no word of it: it is becoming something else, under a new epoch."""
        self._silence.drop(instance)
        self._doubts.drop(instance)

    def next_deadline(self) -> float | None:
        """Say when `lost` should be asked next."""
        silence = self._silence.next()
        moments = (self._doubts.next(), None if silence is None else self._hearing.when(silence))
        return min((at for at in moments if at is not None), default=None)

    def _patience_s(self, seen: Seen) -> float:
        if seen.state is State.STARTING:
            return self._rules.starting_silence_s
        return self._rules.heartbeat_s * (self._rules.misses + 1)


def _life(last: Seen | None, status: Status) -> Epoch:
    """Return the epoch under which this process was heard first: its numbers grow on, those of a new one begin at 1."""
    if last is None or last.role is not status.role or State.STARTING in (last.state, status.state):
        goes_on = last is not None and last.epoch == status.epoch
    else:
        goes_on = last.epoch == status.epoch or 0 < last.number < status.number
    return last.life if last is not None and goes_on else status.epoch
