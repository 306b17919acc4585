"""Every way in which a request ends badly at the gateway, and what its caller is told.

Busy and absent are told apart: OVERLOADED means that workers exist and are taken, NO_CAPACITY that there are none.
"""

from shared.errors import Code
from shared.messages import Role
from shared.policy.attempts import OpenRequest, Phase
from shared.policy.book import Book
from shared.policy.dispatch_events import Action, Arrived, Cause, DispatchRules, Refuse, Withdraw
from shared.policy.placement import FleetView
from shared.policy.scarcity import Scarcity
from shared.policy.suspects import Suspects


class Endings:
    """Closes requests in the book. A request that somebody may still hold is withdrawn first."""

    def __init__(
        self, book: Book, view: FleetView, scarcity: Scarcity, suspects: Suspects, rules: DispatchRules
    ) -> None:
        self._book = book
        self._view = view
        self._scarcity = scarcity
        self._suspects = suspects
        self._rules = rules

    def close(self, request: OpenRequest, cause: Cause) -> list[Action]:
        """Forget a request; whoever still has an attempt of it drops that."""
        lives = request.phase is not Phase.WAITING
        self._suspects.forget(request)
        self._book.close(request)
        return [Withdraw(request.request_id, request.attempt, cause)] if lives else []

    def well(self, request: OpenRequest) -> None:
        """Forget a request that ended well: nobody has an attempt of it."""
        self._suspects.forget(request)
        self._book.close(request)

    def refuse(
        self, request: OpenRequest, code: Code, text: str, cause: Cause, retry_after_s: float | None = None
    ) -> list[Action]:
        """End a request badly."""
        if code is Code.OVERLOADED and retry_after_s is None:
            waits = request.phase is Phase.WAITING
            wait_s = self._book.waiting[request.scenario].wait_s(request) if waits else None
            retry_after_s = max(self._rules.busy_retry_s, wait_s or 0.0)
        elif code is Code.NO_CAPACITY:
            retry_after_s = self._rules.absent_retry_s
        return [*self.close(request, cause), Refuse(request.request_id, code, text, cause, retry_after_s)]

    def at_the_door(self, event: Arrived, now: float) -> Refuse | None:
        """Refuse what cannot succeed before it is let in."""
        if event.wanted_by <= now:
            text = "the request came after its own deadline"
            return Refuse(event.request_id, Code.DEADLINE, text, Cause.DEADLINE)
        if self._scarcity.hopeless(event.scenario, now, resumed=event.begun):
            text = f"scenario {event.scenario} has no worker"
            return Refuse(event.request_id, Code.NO_CAPACITY, text, Cause.ABSENT, self._rules.absent_retry_s)
        if len(self._book) >= self._rules.max_open:
            text = f"{len(self._book)} requests are open already"
            return Refuse(event.request_id, Code.OVERLOADED, text, Cause.CROWDED, self._rules.busy_retry_s)
        return None

    def too_late(self, request: OpenRequest, now: float) -> list[Action]:
        """Refuse a waiting request early if no slot would come in time, by the pace and its tenant's share of it."""
        wait_s = self._book.waiting[request.scenario].wait_s(request)
        if wait_s is None or now + wait_s <= request.due:
            return []
        text = f"the wait for a free slot, about {wait_s:.1f} s, is longer than it may wait"
        return self.refuse(request, Code.OVERLOADED, text, Cause.DEADLINE, max(wait_s, self._rules.busy_retry_s))

    def displace(self, request: OpenRequest) -> list[Action]:
        """Refuse a new request that no longer has a place to wait; it need not be the one that came last."""
        others = self._book.waiting[request.scenario].fresh - 1
        newest = request.number == self._book.arrivals
        text = f"{others} requests wait for a slot already"
        if not newest:
            text += ", and those of higher priority or of tenants that hold less than their share go first"
        return self.refuse(request, Code.OVERLOADED, text, Cause.FULL if newest else Cause.DISPLACED)

    def overdue(self, now: float) -> list[Action]:
        """End whatever has reached its deadline, and whoever waits for workers that do not come."""
        actions: list[Action] = []
        if self._book.ends.first > now and self._scarcity.turns.first > now:
            return actions
        for request in self._book.overdue(now):
            code, text, cause = self._why_overdue(request, now)
            actions += self.refuse(request, code, text, cause)
        for scenario in self._scarcity.due(now):
            waiting = self._book.waiting[scenario]
            hopeless = waiting.new()
            if self._scarcity.hopeless(scenario, now, resumed=True):
                hopeless += waiting.resumed
            for request in hopeless:
                text = f"scenario {scenario} has no worker"
                actions += self.refuse(request, Code.NO_CAPACITY, text, Cause.ABSENT)
        return actions

    def _why_overdue(self, request: OpenRequest, now: float) -> tuple[Code, str, Cause]:
        if request.accepted and request.expires <= now:
            return Code.DEADLINE, "the request took longer than it may", Cause.EXPIRED
        if request.accepted:
            return Code.DEADLINE, "no first token in time, after an attempt that failed", Cause.DEADLINE
        if self._view.exists(request.scenario, Role.PREFILL):
            text = "all workers were busy for as long as the request may wait"
            return Code.OVERLOADED, text, Cause.DEADLINE
        text = f"scenario {request.scenario} had no worker for as long as the request may wait"
        return Code.NO_CAPACITY, text, Cause.DEADLINE
