"""Which decodes a prefill can push to: who is to be verified and when, and what went there. Pure; `linking` performs.

A decode is verified when it is new, when it has a new epoch, again and again after a failure, and once more when a
push of a request failed. None is asked before it has said that it is ready.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.messages import Epoch, Link, Role, State, Status
from shared.policy.recent import Recent

AT_ONCE: Final = 4
"""Checks under way."""
FIRST_S: Final = 1.0
"""From a failed check to the next; doubled by each further one."""
LONGEST_S: Final = 30.0
REMEMBERED: Final = 10_000
"""Decodes of the scenario whose last word is kept, for a map may name them later."""
LONGEST_PROBLEM: Final = 120
_NOT_READY: Final = "it has not said yet that it is ready"


@dataclass(frozen=True, slots=True)
class Check:
    """One verification to perform; ends in one `passed` or `failed`."""

    decode: str
    epoch: Epoch
    number: int


@dataclass(slots=True)
class _Way:
    """The way to one decode."""

    epoch: Epoch
    at: float  # when it is to be verified
    verified: bool = False
    doubted: bool = False  # verified once, and to be verified again
    problem: str = ""
    failures: int = 0  # in a row
    checking: int = 0  # the check that runs
    pushes: int = 0
    nbytes: int = 0
    push_us: int = 0

    def begin_anew(self, epoch: Epoch, now: float) -> None:
        """It is another incarnation: nothing of what is known of its way holds, but for what went there."""
        self.epoch, self.at = epoch, now
        self.verified, self.doubted, self.problem, self.failures, self.checking = False, False, "", 0, 0


class LinkBook:
    """One prefill's. `changed` is set by whatever others should hear soon; who tells them resets it."""

    def __init__(self) -> None:
        self.changed = False
        self._ways: dict[str, _Way] = {}
        self._said: Recent[str, tuple[Epoch, bool]] = Recent(REMEMBERED)  # epoch, and whether it is ready
        self._number = 0

    def __len__(self) -> int:
        return len(self._ways)

    @property
    def verified(self) -> int:
        """Count the ways that are known to be good."""
        return sum(way.verified for way in self._ways.values())

    # ---- what is heard

    def members(self, decodes: Mapping[str, Epoch], now: float) -> None:
        """Take in the decodes of our group, by the newest map, with the epochs that it gives them."""
        for decode in self._ways.keys() - decodes.keys():
            del self._ways[decode]
            self.changed = True
        for decode, epoch in decodes.items():
            said = self._said.get(decode)
            newest = epoch if said is None else max(epoch, said[0])
            way = self._ways.get(decode)
            if way is None:
                self._ways[decode] = _Way(newest, now)
                self.changed = True
            elif newest > way.epoch:
                way.begin_anew(newest, now)
                self.changed = True

    def hear(self, status: Status, now: float) -> None:
        """Take in what a decode says of itself."""
        before = self._said.get(status.instance)
        if status.role is not Role.DECODE or (before is not None and status.epoch < before[0]):
            return
        ready = status.state is State.READY
        self._said.put(status.instance, (status.epoch, ready))
        way = self._ways.get(status.instance)
        if way is None:
            return
        if status.epoch > way.epoch:
            way.begin_anew(status.epoch, now)
            self.changed = True
        elif ready and not way.verified and before != (status.epoch, True):
            way.failures, way.at = 0, now  # what failed before may have failed for want of this

    # ---- checks

    def due(self, now: float) -> list[Check]:
        """Begin the checks whose time has come, as many as may be under way."""
        room = AT_ONCE - sum(way.checking > 0 for way in self._ways.values())
        waiting = sorted((way.at, decode) for decode, way in self._ways.items() if self._wanted(decode, way))
        checks = []
        for at, decode in waiting[: max(0, room)]:
            if at > now:
                break
            self._number += 1
            self._ways[decode].checking = self._number
            checks.append(Check(decode, self._ways[decode].epoch, self._number))
        return checks

    def next(self) -> float | None:
        """Return when `due` should be called next, if nothing is heard before."""
        if sum(way.checking > 0 for way in self._ways.values()) >= AT_ONCE:
            return None
        return min((way.at for decode, way in self._ways.items() if self._wanted(decode, way)), default=None)

    def passed(self, check: Check, epoch: Epoch) -> None:
        """Note that a buffer has arrived, at the decode with this epoch."""
        way = self._of(check)
        if way is not None:
            way.checking = way.failures = 0
            way.epoch, way.verified, way.doubted, way.problem = max(way.epoch, epoch), True, False, ""
            self.changed = True

    def failed(self, check: Check, problem: str, now: float, *, refused: bool = False) -> None:
        """Note that none has, and why. `refused`: for the moment only, which is nothing against a way known as good."""
        way = self._of(check)
        if way is None:
            return
        way.checking = 0
        way.failures += 1
        way.at = now + min(LONGEST_S, FIRST_S * 2.0 ** min(way.failures - 1, 16))
        if not (refused and way.verified):
            self.changed |= way.verified or way.problem != problem[:LONGEST_PROBLEM]
            way.verified, way.doubted, way.problem = False, False, problem[:LONGEST_PROBLEM]

    # ---- pushes of requests

    def pushed(self, decode: str, epoch: Epoch, nbytes: int, seconds: float) -> None:
        """Count a request's buffer that has arrived; a better check there is not."""
        way = self._ways.get(decode)
        if way is None:
            return
        way.pushes += 1
        way.nbytes += nbytes
        way.push_us += int(seconds * 1_000_000)
        if epoch == way.epoch:
            self.changed |= not way.verified
            way.verified, way.doubted, way.problem = True, False, ""

    def doubt(self, decode: str, now: float) -> None:
        """Have a way verified again soon: a request's buffer did not get through."""
        way = self._ways.get(decode)
        if way is not None and way.verified and not way.doubted:
            way.doubted, way.failures, way.at = True, 0, now

    def links(self) -> list[Link]:
        """Tell all ways, in the order of names."""
        return [
            Link(
                decode,
                way.epoch,
                verified=way.verified,
                problem=way.problem or ("" if way.verified or self._is_ready(decode, way) else _NOT_READY),
                pushes=way.pushes,
                bytes=way.nbytes,
                push_us=way.push_us,
            )
            for decode, way in sorted(self._ways.items())
        ]

    def _of(self, check: Check) -> _Way | None:
        """Find the way that a check is still about."""
        way = self._ways.get(check.decode)
        return way if way is not None and way.checking == check.number else None

    def _wanted(self, decode: str, way: _Way) -> bool:
        return (not way.verified or way.doubted) and not way.checking and self._is_ready(decode, way)

    def _is_ready(self, decode: str, way: _Way) -> bool:
        said = self._said.get(decode)
        return said is not None and said[1] and said[0] >= way.epoch
