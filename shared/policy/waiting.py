"""The requests of one scenario that wait for a slot: who is next, who must leave when it is full, how long it takes.

Owns the order: those that lost their worker, then the priorities, each shared fairly between its tenants. A priority
whose oldest request has waited for long gets every so many-th slot, so that nobody waits for ever.
"""

from bisect import insort
from collections.abc import Iterator

from shared.policy.attempts import OpenRequest, Rank
from shared.policy.dispatch_events import DispatchRules
from shared.policy.line import Line
from shared.policy.pace import Pace
from shared.policy.shares import Shares


class Waiting:
    """New requests, which are bounded, and those that lost their worker, which are not lost.

    The latter are bounded by the number of open requests.
    """

    def __init__(self, rules: DispatchRules) -> None:
        self.pace = Pace()
        self.resumed: Line[Rank, OpenRequest] = Line()
        self.fresh = 0
        self._rules = rules
        self._resumed_cost = 0
        self._shares: dict[int, Shares] = {}  # kept when empty: what was charged there may be given back there
        self._priorities: list[int] = []  # those with somebody in, first the first
        self._passed = 0  # slots in a row that went to the first priority

    def __len__(self) -> int:
        return self.fresh + len(self.resumed)

    def of(self, tenant: str) -> int:
        """Count a tenant's new requests."""
        return sum(shares.of(tenant) for shares in self._shares.values())

    def new(self) -> list[OpenRequest]:
        """List those that no worker has had yet."""
        return [request for priority in self._priorities for request in self._shares[priority]]

    def add(self, request: OpenRequest) -> None:
        """Let it wait at its place."""
        if request.accepted:
            self.resumed.add(request.rank, request)
            self._resumed_cost += request.cost
            return
        shares = self._shares.get(request.priority)
        if shares is None:
            shares = self._shares[request.priority] = Shares()
        if not shares:
            insort(self._priorities, request.priority)
        shares.add(request)
        self.fresh += 1

    def take(self, request: OpenRequest) -> None:
        """Let it go: it gets a slot, at its tenant's cost unless it had one before."""
        if request.accepted:
            self.discard(request)
            return
        self._passed = self._passed + 1 if request.priority == self._priorities[0] else 0
        self._shares[request.priority].take(request)
        self._left(request.priority)

    def discard(self, request: OpenRequest) -> None:
        """Let it go, if it waits."""
        if request.accepted:
            if self.resumed.drop(request.rank):
                self._resumed_cost -= request.cost
            return
        shares = self._shares.get(request.priority)
        if shares is not None:
            before = len(shares)
            shares.discard(request)
            if len(shares) < before:
                self._left(request.priority)

    def _left(self, priority: int) -> None:
        self.fresh -= 1
        if not self._shares[priority]:
            self._priorities.remove(priority)

    def order(self, now: float) -> Iterator[OpenRequest]:
        """Name them in the order in which they are served; nothing may change meanwhile."""
        yield from self.resumed
        aged = self._aged(now) if self._passed + 1 >= self._rules.ageing_turn else None
        if aged is not None:
            yield from self._shares[aged].order()
        for priority in self._priorities:
            if priority != aged:
                yield from self._shares[priority].order()

    def _aged(self, now: float) -> int | None:
        """Find the priority below the first whose oldest request has waited longest, and too long."""
        if len(self._priorities) < 2:  # noqa: PLR2004
            return None
        priority = min(self._priorities[1:], key=lambda one: self._shares[one].oldest.arrived)
        return priority if now - self._shares[priority].oldest.arrived >= self._rules.ageing_s else None

    def most(self) -> OpenRequest:
        """Name the new request that leaves first: of the last priority, of the tenant with the most for its weight."""
        return self._shares[self._priorities[-1]].most

    def wait_s(self, request: OpenRequest) -> float | None:
        """Estimate how long one that waits will wait, by its tenant's share and if nobody else comes; None: unknown."""
        cost = float(self._resumed_cost)
        if request.accepted or not self.pace.known:
            return self.pace.takes_s(cost)
        for priority in self._priorities:
            if priority == request.priority:
                return self.pace.takes_s(cost + self._shares[priority].ahead(request))
            cost += self._shares[priority].cost
        return None
