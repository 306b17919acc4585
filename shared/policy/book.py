"""The book of open requests: who waits, which attempt is at which instance, when each request ends.

Owns the bookkeeping and keeps it in step with the view's counts; every change of a request's phase happens here.
Decides nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from functools import partial

from shared.policy.attempts import OpenRequest, Phase
from shared.policy.deadlines import Deadlines
from shared.policy.dispatch_events import Arrived, Cause, DispatchRules, Offer
from shared.policy.placement import FleetView
from shared.policy.routes import Choice
from shared.policy.waiting import Waiting


class Book:
    """Each request is in one line of waiting, or entered at one instance, until it is closed."""

    def __init__(self, view: FleetView, rules: DispatchRules) -> None:
        self._view = view
        self._requests: dict[str, OpenRequest] = {}
        self._at: dict[str, dict[str, OpenRequest]] = {}  # instance -> requests there, in order
        self._open: Counter[str] = Counter()  # by scenario
        self.ends: Deadlines[str] = Deadlines()
        self.local: Counter[str] = Counter()  # by decode: requests whose prompt it computes
        self.arrivals = 0
        self.waiting: defaultdict[str, Waiting] = defaultdict(partial(Waiting, rules))

    def __len__(self) -> int:
        return len(self._requests)

    def get(self, request_id: str) -> OpenRequest | None:
        """Find an open request."""
        return self._requests.get(request_id)

    def holding(self) -> Collection[str]:
        """Name the instances that were asked or have something."""
        return self._at.keys()

    def of(self, scenario: str) -> int:
        """Count a scenario's requests."""
        return self._open[scenario]

    def next_deadline(self) -> float | None:
        """Say when the first request ends."""
        return self.ends.next()

    def overdue(self, now: float) -> list[OpenRequest]:
        """Name the requests whose end has come; each must be closed."""
        return [self._requests[request_id] for request_id in self.ends.due(now)]

    def arrive(self, event: Arrived, now: float) -> OpenRequest:
        """Open a request; it waits."""
        self.arrivals += 1
        request = OpenRequest.of(event, self.arrivals, now)
        self._requests[request.request_id] = request
        self._open[request.scenario] += 1
        self.wait(request, Cause.ARRIVED)
        return request

    def wait(self, request: OpenRequest, cause: Cause) -> None:
        """Let a request that is nowhere wait for an offer."""
        request.cause = cause
        self.waiting[request.scenario].add(request)
        self.ends.set(request.request_id, request.ends_at)

    def offer(self, request: OpenRequest, choice: Choice, now: float) -> Offer:
        """Take a request out of the wait and enter its next attempt at the chosen instance."""
        self.waiting[request.scenario].take(request)
        request.phase = Phase.OFFERED
        request.attempt += 1
        request.progress = request.decoding = False
        request.local = choice.local
        if choice.local:
            self.local[choice.instance] += 1
        self._enter(request, choice.instance, now)
        self._view.dispatched(choice.instance)
        return Offer(request.request_id, request.attempt, choice.instance, request.cause, choice.route)

    def accept(self, request: OpenRequest, now: float) -> None:
        """Note that the instance has the attempt: it said so, or what it does shows it."""
        if request.phase is not Phase.OFFERED:
            return
        self._view.accepted(request.instance)
        waiting = self.waiting[request.scenario]
        waiting.pace.got(now, request.cost, others_wait=len(waiting) > 0)
        request.phase = Phase.HELD
        request.accepted = True
        request.since = now
        self.ends.set(request.request_id, request.ends_at)

    def begin(self, request: OpenRequest) -> None:
        """Note that the client has a token of the last attempt."""
        request.begun = request.progress = True
        self.ends.set(request.request_id, request.ends_at)

    def hand_off(self, request: OpenRequest, decode: str, now: float) -> None:
        """Move a held attempt to the decode."""
        if not request.decoding:
            self._view.settled(request.instance)
        self._detach(request)
        request.decoding = True
        self._enter(request, decode, now)

    def reject(self, request: OpenRequest) -> None:
        """Take an offered attempt away from an instance that did not want it."""
        self._view.rejected(request.instance)
        self._exit(request)

    def give_up(self, request: OpenRequest, now: float) -> None:
        """Take an offered attempt away from an instance that did not answer."""
        self._view.unanswered(request.instance, now)
        self._exit(request)

    def leave(self, request: OpenRequest) -> None:
        """Take the attempt away from whoever has it, if anybody."""
        if request.phase is Phase.OFFERED:
            self._view.withdrawn(request.instance)
        elif request.phase is Phase.HELD and not request.decoding:
            self._view.settled(request.instance)
        self._exit(request)

    def lose(self, instance: str) -> list[OpenRequest]:
        """Take all attempts away from an instance that is gone; their phase still says what they were."""
        self.local.pop(instance, None)
        return list(self._at.pop(instance, {}).values())

    def release(self, request: OpenRequest) -> None:
        """Note that a request from `lose` is nowhere now."""
        request.phase = Phase.WAITING
        request.instance = ""
        request.local = False

    def close(self, request: OpenRequest) -> None:
        """Forget a request wherever it is."""
        self.leave(request)
        self.waiting[request.scenario].discard(request)
        self.ends.drop(request.request_id)
        self._open[request.scenario] -= 1
        del self._requests[request.request_id]

    def _enter(self, request: OpenRequest, instance: str, now: float) -> None:
        request.instance = instance
        request.since = now
        self._at.setdefault(instance, {})[request.request_id] = request

    def _exit(self, request: OpenRequest) -> None:
        self._detach(request)
        request.phase = Phase.WAITING
        request.instance = ""

    def _detach(self, request: OpenRequest) -> None:
        if request.local:
            request.local = False
            self.local[request.instance] -= 1
            if not self.local[request.instance]:
                del self.local[request.instance]
        there = self._at.get(request.instance)
        if there is not None:
            there.pop(request.request_id, None)
            if not there:
                del self._at[request.instance]
