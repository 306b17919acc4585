"""What instances said last, and when: for the watch, for the report. Bounded; forgets who has been gone for long."""

import time
from collections.abc import Callable, Mapping

import msgspec

from shared.messages import InstanceRecord, State, Status

MOST = 20_000
"""Instances remembered; a sender of made-up names cannot fill the memory."""
FORGET_S = 600.0
GONE = (State.STOPPED, State.FAILED)


class Sight:
    """The last Status of each instance."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.statuses: dict[str, Status] = {}
        self.refused = 0  # statuses of one instance too many
        self._heard: dict[str, float] = {}
        self._clock = clock

    def see(self, status: Status) -> bool:
        """Take a status in. False when it is older than the one we have, or one too many."""
        last = self.statuses.get(status.instance)
        if last is None and len(self.statuses) >= MOST:
            self.refused += 1
            return False
        if last is not None and (status.epoch, status.number) <= (last.epoch, last.number):
            return False
        self.statuses[status.instance] = status
        self._heard[status.instance] = self._clock()
        return True

    def living(self) -> dict[str, Status]:
        """Return those that have not said that they are gone."""
        return {name: status for name, status in self.statuses.items() if status.state not in GONE}

    def places(self) -> dict[str, tuple[str, str, str]]:
        """Return the role, scenario and group of the living."""
        return {name: (one.role.value, one.scenario, one.group) for name, one in self.living().items()}

    def late(self, seconds: float) -> list[Status]:
        """List the living who have said nothing for so long, but not for so long that all is said about them."""
        now = self._clock()
        return [one for name, one in self.living().items() if seconds < now - self._heard[name] < FORGET_S]

    def forget(self) -> None:
        """Drop whoever has not been heard for long."""
        now = self._clock()
        for name in [name for name, at in self._heard.items() if now - at > FORGET_S]:
            del self.statuses[name], self._heard[name]

    def freshened(self, records: Mapping[str, InstanceRecord]) -> list[InstanceRecord]:
        """Join the records of Redis with what was heard since."""
        joined = dict(records)
        for name, status in self.statuses.items():
            record = records.get(name)
            if record is None or status.epoch > record.epoch:
                record = InstanceRecord(name, status.role, status.state, status.epoch)
            if status.epoch < record.epoch or record.state in GONE:
                continue  # it is another process now, or the monitor has noted its end
            joined[name] = msgspec.structs.replace(
                record,
                state=status.state,
                scenario=status.scenario,
                group=status.group,
                slots=status.slots,
                load=max(0, status.slots - status.free),
                health=status.health,
                revision=status.revision,
            )
        return list(joined.values())
