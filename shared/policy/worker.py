"""What one observer knows of one worker: its place in the map, its last status, and our own dealings with it."""

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from shared.messages import Epoch, Health, Role, State, Status
from shared.policy.pool import Standing, Tier

TIERS: Final = ((Tier.FREE, Tier.FULL), (Tier.SUSPECT, Tier.SUSPECT_FULL))
"""By whether it is suspect, and whether it is full; looked up, since standings are made at every event."""


@dataclass(slots=True)
class Worker:
    """A worker in an observer's eyes. The view changes it; it only answers for itself."""

    instance: str
    tie: int
    scenario: str = ""
    group: str = ""
    role: Role = Role.STANDBY
    member: Epoch | None = None  # the epoch in the map; None: in no map
    epoch: Epoch | None = None  # the highest heard of it, by whatever way
    joined: bool = True  # False: in the map, but its pairs are still verified
    status: Status | None = None
    removed: bool = False  # the map had it, and has it no more
    silent: bool = False
    gone: bool = False
    penalties: int = 0  # unanswered offers in a row
    punished: bool = False  # the last of them is too fresh
    open: int = 0  # our streams there, offers included
    unanswered: int = 0  # of them, offers under way
    taken: int = 0  # accepted since the last status, which cannot show them
    closed: bool = False  # it rejected an offer since its last status
    turn: int = 0

    @property
    def routable(self) -> bool:
        """It has joined the map, is ready and well, and nothing says that another has its place."""
        return (
            not self.gone
            and self.member is not None
            and self.joined
            and self.status is not None
            and self.status.state is State.READY
            and self.status.health is not Health.FAILED
            and self.status.role is self.role
            and self.status.epoch >= self.member
        )

    @property
    def free(self) -> int:
        """Slots, as far as we can know; the worker's own answer decides."""
        if self.status is None or self.closed:
            return 0
        return max(0, self.status.free - self.taken - self.unanswered)

    @property
    def streams(self) -> int:
        """Open streams: what it reported and we added since, but never less than our own."""
        used = 0 if self.status is None else max(0, self.status.slots - self.status.free)
        return max(self.open, used + self.taken + self.unanswered)

    @property
    def standing(self) -> Standing | None:
        """Its place among the candidates; None: it is none."""
        status = self.status
        if status is None or not self.routable:
            return None
        tier = TIERS[self.silent or self.punished][self.free == 0]
        return Standing(tier, self.streams, -status.kv_free_bytes, self.turn, self.tie, self.instance)

    def outdates(self, status: Status) -> bool:
        """The status is older than what is known: of an older epoch, or overtaken by a later one."""
        if self.member is not None and status.epoch < self.member:
            return True
        last = self.status
        if last is None or status.epoch > last.epoch:
            return False
        return status.epoch < last.epoch or 0 < status.number <= last.number

    def restarted(self, status: Status) -> bool:
        """The status is of a new process. A process that only had to take a new lease counts its statuses on."""
        last = self.status
        if last is None or status.epoch <= last.epoch:
            return False
        return status.state is State.STARTING or 0 < status.number <= last.number

    def report(self, status: Status) -> None:
        """Take in a status: it shows what was accepted before it, and that it is not silent."""
        self.status = status
        self.taken = 0
        self.closed = self.silent = False

    def dispatch(self, turn: int) -> None:
        """Count an offer under way."""
        self.turn = turn
        self.open += 1
        self.unanswered += 1

    def answer(self, *, taken: int = 0, left: int = 0) -> None:
        """Count an answer: slots that are taken since the last status, streams that are not there after all."""
        self.unanswered = max(0, self.unanswered - 1)
        self.open = max(0, self.open - left)
        self.taken += taken

    def punish(self, first_s: float, longest_s: float) -> float:
        """Make it suspect. For how long: twice as long each time, until it answers."""
        penalty_s = min(longest_s, first_s * 2.0 ** min(self.penalties, 30))
        self.penalties += 1
        self.punished = True
        return penalty_s

    def forget_streams(self) -> None:
        """Start our own accounts anew, with a new incarnation."""
        self.open = self.unanswered = self.taken = self.penalties = 0
        self.closed = self.punished = False


def tie_of(watcher: str, instance: str) -> int:
    """A number that orders instances differently for each observer, and the same way each time."""
    return crc32(f"{watcher}|{instance}".encode())
