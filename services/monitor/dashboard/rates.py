"""Rates and quantiles out of counters that only grow. Pure: what was seen and `now` go in. Bounded by what is seen."""

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from services.monitor.dashboard.figures import Figures
from shared.messages import BUCKETS, FRACTIONS, Epoch, GroupTraffic, Link, Status, Traffic, Work

RATE_S: Final = 10.0
"""Rates are means over so long."""
TIMES_S: Final = 60.0
"""Shares and quantiles are of the requests of so long."""
SILENT_S: Final = 5.0
"""A gateway that has not said anything new for so long has nothing waiting any more."""
WITHIN: Final = FRACTIONS.index(1.0) + 1
"""Buckets that are within the objective."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Span(Generic[V]):
    """Two values of the same counters, and the time between them."""

    first: V
    last: V
    seconds: float


class Track(Generic[K, V]):
    """The last values of counters by key. A new epoch starts anew, so that no difference is ever negative."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._seen: dict[K, tuple[Epoch, deque[tuple[float, V]]]] = {}

    def see(self, values: Iterable[tuple[K, Epoch, V]], now: float) -> None:
        """Take in all that there is now; keys that are not among them are forgotten."""
        fresh = {}
        for key, epoch, value in values:
            known = self._seen.get(key)
            row = known[1] if known is not None and known[0] == epoch else deque()
            row.append((now, value))
            while len(row) > 1 and now - row[1][0] >= self._keep_s:
                row.popleft()
            fresh[key] = (epoch, row)
        self._seen = fresh

    def span(self, key: K, seconds: float) -> Span[V] | None:
        """Return the oldest value of the last so many seconds, and the newest; None before there are two."""
        row = self._seen.get(key, ((0, 0), deque()))[1]
        if len(row) < 2:  # noqa: PLR2004
            return None
        at, last = row[-1]
        begun, first = next((one for one in row if at - one[0] <= seconds), row[-1])
        if begun == at:
            begun, first = row[-2]
        return Span(first, last, at - begun)


@dataclass(frozen=True, slots=True)
class Times:
    """How a kind of time stood to its objective. Quantiles in fractions of it; the last bound stands for beyond it."""

    count: int = 0
    within: float = 0.0  # share
    p50: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one scenario's requests lately, over all gateways."""

    known: bool = False
    arriving_per_s: float = 0.0
    finished_per_s: float = 0.0
    tokens_per_s: float = 0.0
    finished: int = 0  # within TIMES_S, as the rest
    failed: int = 0
    refused: int = 0
    waiting: int = 0  # now
    open: int = 0
    ttft: Times = Times()
    tpot: Times = Times()


@dataclass(frozen=True, slots=True)
class Pace:
    """What one worker did lately."""

    passed_per_s: float = 0.0
    tokens_per_s: float = 0.0
    busy: float = 0.0  # share of the time with at least one request
    waiting: float = 0.0  # prefill: computed KV that waited for a decode or moved there, on average


@dataclass(frozen=True, slots=True)
class Flow:
    """What went over one link lately."""

    bytes_per_s: float = 0.0
    push_ms: float = 0.0  # mean


class Rates:
    """Remembers counters for as long as its figures need them."""

    def __init__(self) -> None:
        self._traffic: Track[tuple[str, str], Traffic] = Track(TIMES_S)
        self._links: Track[tuple[str, str], Link] = Track(RATE_S)
        self._work: Track[str, Work] = Track(RATE_S)
        self._said: dict[tuple[str, str], tuple[Epoch, int, float]] = {}
        self._room: dict[str, tuple[Epoch, int]] = {}
        self._now = 0.0

    def see(self, figures: Figures, now: float) -> None:
        """Take in what is known now. To be called about once a second."""
        self._now = now
        self._traffic.see((((one.gateway, one.scenario), one.epoch, one) for one in figures.traffic), now)
        said = {}
        for one in figures.traffic:
            key = (one.gateway, one.scenario)
            before = self._said.get(key)
            same = before is not None and before[:2] == (one.epoch, one.number)
            said[key] = before if same and before is not None else (one.epoch, one.number, now)
        self._said = said
        self._links.see(
            (((name, link.decode), said.epoch, link) for name, said in figures.links.items() for link in said.links),
            now,
        )
        statuses = figures.statuses.values()
        self._work.see(((one.instance, one.epoch, one.work) for one in statuses if one.work is not None), now)
        self._room = {one.instance: (one.epoch, self._most_room(one)) for one in statuses}

    def _most_room(self, status: Status) -> int:
        known = self._room.get(status.instance)
        before = known[1] if known is not None and known[0] == status.epoch else 0
        return max(status.kv_free_bytes, before)

    def room(self, instance: str) -> int:
        """Return the most bytes that a decode's blocks were ever seen to have free: about all of them."""
        return self._room.get(instance, ((0, 0), 0))[1]

    def flow(self, prefill: str, decode: str) -> Flow:
        """Return what goes from one prefill to one decode."""
        span = self._links.span((prefill, decode), RATE_S)
        if span is None or span.last.epoch != span.first.epoch:
            return Flow()
        pushes = max(0, span.last.pushes - span.first.pushes)
        spent_us = max(0, span.last.push_us - span.first.push_us)
        moved = max(0, span.last.bytes - span.first.bytes)
        return Flow(moved / span.seconds, spent_us / pushes / 1000 if pushes else 0.0)

    def pace(self, instance: str) -> Pace:
        """Return what one worker does."""
        span = self._work.span(instance, RATE_S)
        if span is None:
            return Pace()
        first, last, us = span.first, span.last, span.seconds * 1e6
        return Pace(
            max(0, last.passed - first.passed) / span.seconds,
            max(0, last.tokens - first.tokens) / span.seconds,
            min(1.0, max(0, last.busy_us - first.busy_us) / us),
            max(0, last.wait_us - first.wait_us) / us,  # Little's law
        )

    def served(self, scenario: str) -> Served:
        """Return how a scenario's requests fare."""
        keys = [key for key in self._said if key[1] == scenario]
        long = [span for key in keys if (span := self._traffic.span(key, TIMES_S))]
        short = [span for key in keys if (span := self._traffic.span(key, RATE_S))]
        awake = [key for key in keys if self._now - self._said[key][2] <= SILENT_S]
        now = [span.last for key in awake if (span := self._traffic.span(key, RATE_S))]
        return Served(
            known=bool(long),
            arriving_per_s=sum(max(0, one.last.arrived - one.first.arrived) / one.seconds for one in short),
            finished_per_s=sum(_grown(one, "finished") / one.seconds for one in short),
            tokens_per_s=sum(_grown(one, "tokens") / one.seconds for one in short),
            finished=sum(_grown(one, "finished") for one in long),
            failed=sum(_grown(one, "failed") for one in long),
            refused=sum(max(0, one.last.refused - one.first.refused) for one in long),
            waiting=sum(one.waiting for one in now),
            open=sum(one.open for one in now),
            ttft=times(_buckets(long, "ttft")),
            tpot=times(_buckets(long, "tpot")),
        )


def times(buckets: list[int]) -> Times:
    """Read shares and quantiles from counts by FRACTIONS of the objective."""
    count = sum(buckets)
    if not count:
        return Times()
    return Times(count, sum(buckets[:WITHIN]) / count, _quantile(buckets, 0.5), _quantile(buckets, 0.99))


def _quantile(buckets: list[int], share: float) -> float:
    """Interpolate within the bucket, as Prometheus does; what is beyond the last bound counts as that bound."""
    rank, below, lower = share * sum(buckets), 0, 0.0
    for count, upper in zip(buckets, FRACTIONS, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below, lower = below + count, upper
    return FRACTIONS[-1]


def _grown(span: Span[Traffic], name: str) -> int:
    before = {one.group: getattr(one, name) for one in span.first.groups}
    return sum(max(0, getattr(one, name) - before.get(one.group, 0)) for one in span.last.groups)


def _buckets(spans: Iterable[Span[Traffic]], name: str) -> list[int]:
    grown = [0] * BUCKETS
    for span in spans:
        before: dict[str, GroupTraffic] = {one.group: one for one in span.first.groups}
        for group in span.last.groups:
            first = getattr(before[group.group], name) if group.group in before else []
            for place, count in enumerate(getattr(group, name)[:BUCKETS]):
                grown[place] += max(0, count - (first[place] if place < len(first) else 0))
    return grown
