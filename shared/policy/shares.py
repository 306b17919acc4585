"""One priority of a scenario's wait, shared between tenants: start-time fair queueing, prompt tokens as the cost.

Owns each tenant's line and its tag: what the tenant was served, in cost divided by its weight, on a clock that all
share. The smallest tag goes next, and a tenant that comes back starts at the clock, so that nobody saves up. While two
tenants both wait, what they were served differs by no more than one request of each: see decision 0006. Within a tenant
the earliest deadline goes first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil
from typing import Final

from shared.policy.attempts import OpenRequest, Rank
from shared.policy.line import Line
from shared.policy.recent import Recent

REMEMBERED: Final = 4096
"""Tenants that do not wait just now whose tag is kept; a forgotten one gains one request at most."""
LOOKED_AT: Final = 16
"""Other tenants that an estimate looks at, evenly spread; they stand for all."""
LEAST_WEIGHT: Final = 1e-3


@dataclass(slots=True)
class Share:
    """One tenant that waits here."""

    tenant: str
    weight: float
    tag: float
    since: int  # number of the request it came with: orders equal tags
    cost: int = 0  # of all its requests here
    requests: Line[Rank, OpenRequest] = field(default_factory=Line)

    @property
    def turn(self) -> tuple[float, int]:
        """Its place among the tenants."""
        return self.tag, self.since

    @property
    def held(self) -> tuple[float, int]:
        """How many places it takes for its weight."""
        return len(self.requests) / self.weight, self.since

    def before(self, tag: float) -> float:
        """Estimate the cost of its requests that are served before its tag comes to this one."""
        mean = self.cost / len(self.requests)
        return mean * min(len(self.requests), ceil(max(0.0, tag - self.tag) * self.weight / mean))


class Shares:
    """All tenants that wait at one priority."""

    def __init__(self) -> None:
        self.cost = 0
        self._clock = 0.0  # tag of the one that was served last
        self._shares: dict[str, Share] = {}
        self._turns: Line[tuple[float, int], Share] = Line()
        self._held: Line[tuple[float, int], Share] = Line()
        self._ages: Line[tuple[int], OpenRequest] = Line()  # by arrival
        self._past: Recent[str, float] = Recent(REMEMBERED)

    def __len__(self) -> int:
        return len(self._ages)

    def __iter__(self) -> Iterator[OpenRequest]:
        """By arrival."""
        return iter(self._ages)

    def of(self, tenant: str) -> int:
        """Count a tenant's requests."""
        share = self._shares.get(tenant)
        return len(share.requests) if share is not None else 0

    @property
    def oldest(self) -> OpenRequest:
        """Name the one that came first."""
        return self._ages.at(0)

    @property
    def most(self) -> OpenRequest:
        """Name the last request of the tenant that takes the most places for its weight."""
        return self._held.at(-1).requests.at(-1)

    def add(self, request: OpenRequest) -> None:
        """Let it wait. One that was offered in vain gets back what its tenant was charged."""
        share = self._shares.get(request.tenant)
        if share is None:
            share = Share(request.tenant, 1.0, self._first_tag(request), request.number)
            self._shares[request.tenant] = share
        else:
            self._lift(share)
            share.tag -= request.charged
        if request.charged:
            self._clock = min(self._clock, share.tag)  # nor does it count against whoever comes now
        request.charged = 0.0
        share.weight = max(LEAST_WEIGHT, request.weight)
        share.requests.add(request.rank, request)
        share.cost += request.cost
        self.cost += request.cost
        self._ages.add((request.number,), request)
        self._lower(share)

    def _first_tag(self, request: OpenRequest) -> float:
        past = self._past.get(request.tenant)
        self._past.drop(request.tenant)
        if past is None:
            return self._clock
        return past - request.charged if request.charged else max(past, self._clock)

    def take(self, request: OpenRequest) -> None:
        """Let it go and charge its tenant: it gets a slot."""
        self._clock = max(self._clock, self._turns.at(0).tag)
        share = self._shares[request.tenant]
        request.charged = request.cost / share.weight
        self._leave(share, request, request.charged)

    def discard(self, request: OpenRequest) -> None:
        """Let it go, if it waits here; nobody is charged."""
        share = self._shares.get(request.tenant)
        if share is not None and request.rank in share.requests:
            self._leave(share, request, 0.0)

    def _leave(self, share: Share, request: OpenRequest, charge: float) -> None:
        self._lift(share)
        share.tag += charge
        share.requests.drop(request.rank)
        share.cost -= request.cost
        self.cost -= request.cost
        self._ages.drop((request.number,))
        if share.requests:
            self._lower(share)
        else:
            del self._shares[share.tenant]
            self._past.put(share.tenant, share.tag)

    def _lift(self, share: Share) -> None:
        """Take it out of the orders while what they go by changes."""
        self._turns.drop(share.turn)
        self._held.drop(share.held)

    def _lower(self, share: Share) -> None:
        self._turns.add(share.turn, share)
        self._held.add(share.held, share)

    def order(self) -> Iterator[OpenRequest]:
        """Name the requests in the order in which they would be served; nothing may change meanwhile."""
        heap: list[tuple[float, int, int, Share]] = []
        tenants = 0
        while heap or tenants < len(self._turns):
            while tenants < len(self._turns) and (not heap or self._turns.at(tenants).turn < heap[0][:2]):
                share = self._turns.at(tenants)
                heappush(heap, (share.tag, share.since, 0, share))
                tenants += 1
            tag, since, place, share = heappop(heap)
            request = share.requests.at(place)
            yield request
            if place + 1 < len(share.requests):
                heappush(heap, (tag + request.cost / share.weight, since, place + 1, share))

    def ahead(self, request: OpenRequest) -> float:
        """Estimate the cost of all that is served up to and with this one."""
        mine = self._shares.get(request.tenant)
        if mine is None:
            return float(self.cost + request.cost)
        before = mine.cost * mine.requests.ahead(request.rank) / len(mine.requests)
        tag = mine.tag + before / mine.weight
        others, seen = 0.0, 0
        for place in range(0, len(self._turns), max(1, len(self._turns) // LOOKED_AT)):
            share = self._turns.at(place)
            if share is not mine:
                seen += 1
                others += share.before(tag)
        return before + request.cost + (others * (len(self._turns) - 1) / seen if seen else 0.0)
