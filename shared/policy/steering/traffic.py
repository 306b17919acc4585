"""What gateways say, added up: each one's counters start anew with its epoch, the sums here only grow."""

from dataclasses import dataclass, field
from typing import Final

from shared.messages import BUCKETS, FRACTIONS, GroupTraffic, Traffic
from shared.policy.steering.window import Row

SILENT_S: Final = 5.0
"""A gateway that has not said anything for so long has nothing waiting any more."""
MOST_GATEWAYS: Final = 1024
FORGET_S: Final = 600.0
_WITHIN: Final = FRACTIONS.index(1.0) + 1


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one group's requests. Those over the objective are counted apart."""

    finished: int = 0
    failed: int = 0
    firsts: int = 0  # first tokens
    late: int = 0  # of them, over the objective
    paced: int = 0  # finished ones whose time per token was measured
    slow: int = 0
    e2e_us: int = 0
    prefill_us: int = 0
    tokens: int = 0

    def plus(self, new: "Sums", old: "Sums") -> "Sums":
        """Add what `new` has more than `old`."""
        return Sums(*(mine + max(0, a - b) for mine, a, b in zip(_all(self), _all(new), _all(old), strict=True)))

    def minus(self, old: "Sums") -> "Sums":
        """Return what came since."""
        return Sums(*(a - b for a, b in zip(_all(self), _all(old), strict=True)))

    def both(self, other: "Sums") -> "Sums":
        """Add two groups."""
        return Sums(*(a + b for a, b in zip(_all(self), _all(other), strict=True)))


def _all(sums: Sums) -> tuple[int, ...]:
    return (
        sums.finished,
        sums.failed,
        sums.firsts,
        sums.late,
        sums.paced,
        sums.slow,
        sums.e2e_us,
        sums.prefill_us,
        sums.tokens,
    )


def sums_of(group: GroupTraffic) -> Sums:
    """Take what is needed out of a message."""
    ttft, tpot = group.ttft[:BUCKETS], group.tpot[:BUCKETS]
    return Sums(
        group.finished,
        group.failed,
        sum(ttft),
        sum(ttft[_WITHIN:]),
        sum(tpot),
        sum(tpot[_WITHIN:]),
        group.e2e_us,
        group.prefill_us,
        group.tokens,
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """Sums of a scenario, at one time."""

    arrived: int = 0
    refused: int = 0
    groups: dict[str, Sums] = field(default_factory=dict)


class TrafficSums:
    """One scenario's requests over all gateways. What a gateway counted before it was first heard is left out."""

    def __init__(self, window_s: float) -> None:
        self._last: dict[str, tuple[Traffic, float]] = {}
        self._row: Row[Seen] = Row(window_s)
        self.sums = Seen()

    def see(self, message: Traffic, now: float) -> None:
        """Take a message in; late ones are dropped."""
        known = self._last.get(message.gateway)
        if known is None and len(self._last) >= MOST_GATEWAYS:
            return
        last = known[0] if known is not None else None
        if last is not None and (message.epoch, message.number) <= (last.epoch, last.number):
            return
        self._last[message.gateway] = (message, now)
        self._forget(now)
        if last is not None and last.epoch == message.epoch:
            self._add(message, last)
        self._row.add(self.sums, now)

    def _add(self, message: Traffic, last: Traffic) -> None:
        before = {group.group: group for group in last.groups}
        groups = dict(self.sums.groups)
        for group in message.groups:
            old = before.get(group.group, GroupTraffic(group.group))
            if group != old:
                groups[group.group] = groups.get(group.group, Sums()).plus(sums_of(group), sums_of(old))
        self.sums = Seen(
            self.sums.arrived + max(0, message.arrived - last.arrived),
            self.sums.refused + max(0, message.refused - last.refused),
            groups,
        )

    def keep(self, groups: set[str]) -> None:
        """Forget the sums of all other groups."""
        if not groups >= self.sums.groups.keys():
            kept = {name: sums for name, sums in self.sums.groups.items() if name in groups}
            self.sums = Seen(self.sums.arrived, self.sums.refused, kept)

    def _forget(self, now: float) -> None:
        for gateway in [gateway for gateway, (_, at) in self._last.items() if now - at > FORGET_S]:
            del self._last[gateway]

    def of(self, group: str) -> Sums:
        """Return a group's sums."""
        return self.sums.groups.get(group, Sums())

    def lately(self, group: str, since: float) -> Sums:
        """Return what came to a group's sums since then."""
        span = self._row.since(since)
        if span is None:
            return Sums()
        first, last, _ = span
        return Sums().plus(last.groups.get(group, Sums()), first.groups.get(group, Sums()))

    def rates(self, since: float) -> tuple[float, float]:
        """Return the requests per second that arrived, and those that gateways refused."""
        span = self._row.since(since)
        if span is None:
            return 0.0, 0.0
        first, last, at = span
        seconds = self._row.at - at
        return (last.arrived - first.arrived) / seconds, (last.refused - first.refused) / seconds

    def now(self, now: float) -> tuple[int, int]:
        """Return the requests that wait for a slot, and the open ones."""
        fresh = [message for message, at in self._last.values() if now - at <= SILENT_S]
        return sum(one.waiting for one in fresh), sum(one.open for one in fresh)
