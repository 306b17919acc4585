"""A state of the lease model, and the real machines in it: each holder's tenure, and the receiver's view."""

from dataclasses import dataclass
from typing import NamedTuple

from shared.messages import Epoch, Group, Member, Role, ScenarioMap, State, Status
from shared.policy.placement import FleetView
from shared.tenure import Tenure
from tests.model.freezing import freeze
from tests.model.lease_script import Answer, Store

TTL = 2
NAME = "d1"
NOBODY: Epoch = (0, 0)
FAULTS = frozenset(("flush", "fail over", "freeze", "ask", "release", "begin anew"))


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    steps: int = 4
    faults: int = 2
    kinds: frozenset[str] = FAULTS
    hurt: frozenset[int] = frozenset({0, 1})  # processes that faults may hit
    listens: bool = True  # somebody receives what the holders say
    pulses: bool = False  # whether monitors are heard; the holders have to be right without
    boot_survives: bool = True  # False: epochs begin again after a flush
    fine_clock: bool = True  # False: boot numbers before and after a flush may be drawn from the same time


class Call(NamedTuple):
    """A TAKE on its way."""

    owner: str
    known_boot: int
    sent_at: int
    answer: Answer | None = None  # on its way back
    replaced: bool = False  # when it was executed, another had held the lease since the caller's confirmation


class Holder(NamedTuple):
    """One process."""

    life: int
    tenure: int  # the machine's number
    epoch: Epoch = NOBODY
    known_boot: int = 0
    call: Call | None = None
    late: Call | None = None  # given up by us, and perhaps executed all the same
    frozen_since: int | None = None
    slept: bool = False  # for longer than the ttl, and the lease has not been made anew since
    replaced: bool = False  # another has held the lease since ours was confirmed


class World(NamedTuple):
    """One state. `highest` was granted last; `words` are all that holders ever said, each of which may come now."""

    now: int
    store: Store
    expires_at: int
    run: int
    moments: int  # flushes and failovers so far: two commands never see the same microsecond
    holders: tuple[Holder, Holder]
    words: frozenset[Epoch]
    receiver: int
    highest: Epoch
    accepted: Epoch
    faults: int


class Receiver:
    """A gateway's view, asked whether it takes what comes with an epoch."""

    view_kind = FleetView

    def __init__(self) -> None:
        self.view = self.view_kind()
        self.view.see(ScenarioMap("chat", 1, (0, 1), [Group("main", [], [Member(NAME, NOBODY)])]), 0.0)

    def hear(self, epoch: Epoch) -> bool:
        """Take in a status; whether it counts."""
        current = self.view.current(NAME, epoch)
        self.view.see(Status(NAME, epoch, Role.DECODE, State.READY, "chat", "main"), 0.0)
        return current

    def value(self) -> object:
        return freeze(self.view.epoch(NAME))


class Clock:
    """A tenure, told what happens."""

    def __init__(self) -> None:
        self.tenure = Tenure(TTL, margin_s=TTL / 10)

    def awake(self, now: int, pulse: bool = False) -> None:  # noqa: FBT001, FBT002  # called by name alone
        self.tenure.awake(now)
        if pulse:
            self.tenure.pulse((1, 1), now)

    def confirmed(self, now: int, epoch: Epoch, sent_at: int, created: bool) -> bool:  # noqa: FBT001  # as above
        self.tenure.awake(now)
        return self.tenure.confirmed(epoch, sent_at, created=created)

    def value(self) -> object:
        return freeze(self.tenure)


def owner_of(which: int, holder: Holder) -> str:
    """Who a process is in Redis."""
    return f"{'ab'[which]}{holder.life}"
