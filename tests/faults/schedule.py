"""Random schedules of faults: a seed in, what is hurt when, and for how long, out. Pure.

Owns the rules that keep a schedule fair: it may take anything away at any moment, never all that could bring it back.
What the client's resumption lives on (the other gateway, the workers that hold its stream) is left alone while a
gateway falls; of the workers of a role no more are hurt at once than there are spares; without a monitor nobody takes
a fallen worker's place, so theirs is a while of peace after each fault, as it is the servers'.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final

from shared.messages import Role


class Deed(StrEnum):
    """What is done."""

    KILL = "kill -9"
    FREEZE = "freeze"
    STOP = "SIGTERM"
    PAUSE_KILL = "freeze one, kill another, thaw the first"
    PART_KILL = "part one from NATS, kill another, join the first again"
    NATS_KILL = "kill nats-server"
    NATS_FREEZE = "freeze nats-server"
    REDIS_KILL = "kill Redis"
    REDIS_FREEZE = "freeze Redis"
    REDIS_FLUSH = "flush Redis"
    CUT = "cut"
    SILENT = "silence"
    DEAF = "deafen"
    MUTE = "mute"
    RESET = "reset"
    SLOW = "slow"
    SLICES = "slice"
    LOSSY = "lose, double and delay messages"
    CORRUPT = "flip bits of KV"


WORKERS: Final = (Role.PREFILL, Role.DECODE)
TO_PROCESSES: Final = (Deed.KILL, Deed.FREEZE, Deed.STOP)
TO_TWO: Final = (Deed.PAUSE_KILL, Deed.PART_KILL)
TO_LINES: Final = (Deed.CUT, Deed.SILENT, Deed.DEAF, Deed.MUTE, Deed.RESET, Deed.SLOW, Deed.SLICES)
TO_SERVERS: Final = (Deed.NATS_KILL, Deed.NATS_FREEZE, Deed.REDIS_KILL, Deed.REDIS_FREEZE, Deed.REDIS_FLUSH)
ENDS_CONNECTIONS: Final = (Deed.KILL, Deed.STOP)
"""At a gateway: its clients have to go on at the other one."""
SETTLE_S: Final = 5.0
"""From the end of a fault until nothing of it is under way any more: longer than silence, a lease and a replay take."""
AT_ONCE: Final = 3
"""Faults that overlap."""


@dataclass(frozen=True)
class Fault:
    """One fault, from `at` for so many seconds. `pick` chooses the victims among those that are there then."""

    at: float
    deed: Deed
    role: Role | None  # of the victim; None: a server
    line: str  # "nats", "redis" or "kv" where a line is hurt
    pick: int
    seconds: float

    @property
    def until(self) -> float:
        return self.at + self.seconds

    @property
    def alone(self) -> bool:
        """Whether nothing else may be under way."""
        return self.role is Role.GATEWAY and self.deed in ENDS_CONNECTIONS

    def __str__(self) -> str:
        whom = f" {self.role.value}" if self.role else ""
        line = f" at its line to {self.line}" if self.line else ""
        return f"{self.at:6.2f} {self.deed}{whom}{line} for {self.seconds:.2f} s (pick {self.pick})"


def schedule(seed: int, seconds: float) -> list[Fault]:
    """Make the faults of so many seconds, in order of time; the last of them has ended by then."""
    random = Random(seed)  # noqa: S311  # a seed must repeat
    faults: list[Fault] = []
    at = 0.5
    while at < seconds - 1:
        fault = _any(random, at)
        if fault.alone:  # it waits for its turn, and all others wait for it
            fault = replace(fault, at=max([at, *(one.until + SETTLE_S for one in faults)]))
        if fault.until < seconds and _fair(fault, faults):
            faults.append(fault)
            at = fault.until + SETTLE_S if fault.alone else fault.at
        at += random.uniform(0.05, 1.2)
    return faults


def _fair(fault: Fault, before: list[Fault]) -> bool:
    """Whether it may come where those are under way, or just over."""
    under_way = [one for one in before if one.until > fault.at]
    recent = [one for one in before if one.until + SETTLE_S > fault.at]
    if fault.alone or any(one.alone for one in recent):
        return not recent
    if fault.role in (Role.GATEWAY, Role.MONITOR, None) and any(one.role is fault.role for one in recent):
        return False
    alike = sum(_victims(one) for one in under_way if one.role is fault.role) + _victims(fault)
    return len(under_way) < AT_ONCE and alike <= 2


def _victims(fault: Fault) -> int:
    return 2 if fault.deed in TO_TWO else 1


def _any(random: Random, at: float) -> Fault:
    kinds: tuple[Callable[[Random, float], Fault], ...] = (_process, _process, _two, _line, _line, _server)
    return random.choice(kinds)(random, at)


def _process(random: Random, at: float) -> Fault:
    roles = (Role.PREFILL, Role.DECODE, Role.DECODE, Role.MONITOR, Role.GATEWAY)
    deed, role = random.choice(TO_PROCESSES), random.choice(roles)
    return Fault(at, deed, role, "", random.randrange(100), random.uniform(0.2, 5.0 if deed is Deed.FREEZE else 1.5))


def _two(random: Random, at: float) -> Fault:
    """Two of a kind: the classic that takes the holder away and then its heir."""
    role = random.choice((*WORKERS, Role.MONITOR))
    return Fault(at, random.choice(TO_TWO), role, "", random.randrange(100), random.uniform(0.5, 5.0))


def _line(random: Random, at: float) -> Fault:
    kind = random.random()
    if kind < 0.15:
        return Fault(at, Deed.CORRUPT, Role.DECODE, "kv", random.randrange(100), random.uniform(1.0, 4.0))
    if kind < 0.3:
        role = random.choice((*WORKERS, Role.MONITOR, Role.GATEWAY))
        return Fault(at, Deed.LOSSY, role, "nats", random.randrange(100), random.uniform(1.0, 4.0))
    deed = random.choice(TO_LINES)
    line = random.choice(("nats", "nats", "redis", "kv"))
    role = Role.DECODE if line == "kv" else random.choice((*WORKERS, Role.MONITOR, Role.GATEWAY))
    return Fault(at, deed, role, line, random.randrange(100), random.uniform(0.2, 5.0))


def _server(random: Random, at: float) -> Fault:
    deed = random.choice(TO_SERVERS)
    return Fault(at, deed, None, "", 0, random.uniform(0.2, 3.0))
