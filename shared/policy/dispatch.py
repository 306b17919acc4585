"""Chooses the prefill of each request at a gateway and sees every request to its one ending.

Owns the rules; the requests are in the book, the workers in the view. Sends nothing and sees no token: of a stream it
hears only the first token, the hand-off and the end.
"""

from itertools import islice
from typing import assert_never

from shared.errors import Code
from shared.messages import Role, ScenarioMap, Status
from shared.policy.attempts import OpenRequest, Phase, Verdict
from shared.policy.book import Book
from shared.policy.dispatch_events import (
    Action,
    Arrived,
    AttemptEvent,
    AttemptFailed,
    CancelledByClient,
    Cause,
    DispatchRules,
    Ended,
    Event,
    FirstToken,
    HandedOff,
    OfferAccepted,
    OfferRejected,
    OfferUnanswered,
    Stalled,
    Withdraw,
)
from shared.policy.endings import Endings
from shared.policy.placement import FleetView, Lost
from shared.policy.scarcity import Scarcity
from shared.policy.world import BusDown, BusUp, MapSeen, PulseSeen, StatusSeen, Tick


class Dispatcher:
    """A state machine per request. Every request that arrives ends once: Ended, CancelledByClient or one Refuse."""

    def __init__(self, view: FleetView, rules: DispatchRules | None = None) -> None:
        self.view = view
        self._rules = rules or DispatchRules()
        self._book = Book(view, self._rules)
        self._scarcity = Scarcity(self._rules)
        self._endings = Endings(self._book, view, self._scarcity, self._rules)
        self._bus_up = True

    @property
    def open(self) -> int:
        """Requests not yet ended."""
        return len(self._book)

    def waiting(self, scenario: str) -> int:
        """Count the scenario's requests without a slot."""
        return len(self._book.waiting[scenario]) if scenario in self._book.waiting else 0

    def next_deadline(self) -> float | None:
        """Say when a Tick is due at the latest; ask again after each event."""
        moments = (self._book.next_deadline(), self._scarcity.next_deadline(), self.view.next_deadline())
        return min((at for at in moments if at is not None), default=None)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Say what to do, in this order, because of the event. That of an older attempt does nothing."""
        actions = self._lose(self.view.tick(now), now)
        actions += self._endings.overdue(now)
        match event:
            case Arrived():
                actions += self._arrive(event, now)
            case CancelledByClient(request_id):
                if request := self._book.get(request_id):
                    actions += self._endings.close(request, Cause.CANCELLED)
            case StatusSeen(message) | MapSeen(message):
                actions += self._see(message, now)
            case PulseSeen():
                self.view.hear(now)
            case BusDown() | BusUp():
                self._bus_up = isinstance(event, BusUp)
                actions += self._draw_all(now)
            case Tick():
                actions += self._draw_all(now)
            case _:
                request = self._book.get(event.request_id)
                if request is not None and request.attempt == event.attempt:
                    actions += self._hear_of_attempt(request, event, now)
        return actions

    def _hear_of_attempt(self, request: OpenRequest, event: AttemptEvent, now: float) -> list[Action]:
        """React to the word of the last attempt; what shows that it lives also accepts its offer."""
        actions: list[Action] = []
        match event:
            case FirstToken():
                self._book.accept(request, now)
                self._book.begin(request)
            case Ended():
                self._book.accept(request, now)
                self._book.close(request)
            case _ if request.phase is Phase.WAITING:
                pass  # withdrawn: only what reached the client counts
            case OfferAccepted() | OfferRejected() | OfferUnanswered():
                if event.instance == request.instance and request.phase is Phase.OFFERED:
                    actions = self._answer(request, event, now)
            case HandedOff(instance=decode):
                actions = self._hand_off(request, decode, now)
            case AttemptFailed():
                actions = self._fail(request, event, now)
            case Stalled():
                actions = self._stall(request, now)
            case _:
                assert_never(event)
        return actions

    def _answer(
        self, request: OpenRequest, event: OfferAccepted | OfferRejected | OfferUnanswered, now: float
    ) -> list[Action]:
        match event:
            case OfferAccepted():
                self.view.hear(now)
                self._book.accept(request, now)
                return []
            case OfferRejected():
                return self._reject(request, event, now)
            case OfferUnanswered():
                return self._give_up(request, now)

    # ---- a request's way

    def _arrive(self, event: Arrived, now: float) -> list[Action]:
        if self._book.get(event.request_id) is not None:
            return []
        scenario = event.scenario
        self._scarcity.note(scenario, now, exists=self.view.exists(scenario, Role.PREFILL))
        if (refusal := self._endings.at_the_door(event, now)) is not None:
            return [refusal]
        request = self._book.arrive(event, now)
        actions = self._draw(scenario, now)
        if self._book.get(event.request_id) is request and request.phase is Phase.WAITING:
            actions += self._endings.too_late(request, now)
        return actions

    def _reject(self, request: OpenRequest, event: OfferRejected, now: float) -> list[Action]:
        self.view.hear(now)
        self._book.reject(request)
        if not event.retryable:
            return self._endings.refuse(request, event.code, event.message, Cause.REJECTED)
        request.avoid.add(event.instance)
        self._book.wait(request, Cause.REJECTED)
        return self._draw(request.scenario, now)

    def _give_up(self, request: OpenRequest, now: float) -> list[Action]:
        request.avoid.add(request.instance)
        self._book.give_up(request, now)
        self._book.wait(request, Cause.UNANSWERED)
        withdraw = Withdraw(request.request_id, request.attempt, Cause.UNANSWERED)
        return [withdraw, *self._draw(request.scenario, now)]

    def _hand_off(self, request: OpenRequest, decode: str, now: float) -> list[Action]:
        self.view.hear(now)
        self._book.accept(request, now)
        if request.decoding and request.instance == decode:
            return []
        self._book.hand_off(request, decode, now)
        if self.view.lost(decode):  # the word of its loss was faster
            self._book.leave(request)
            return self._retry(request, Verdict(Code.WORKER_LOST, f"{decode} is gone", Cause.LOST), now)
        return []

    def _fail(self, request: OpenRequest, event: AttemptFailed, now: float) -> list[Action]:
        self._book.accept(request, now)
        if not event.retryable:
            return self._endings.refuse(request, event.code, event.message, Cause.FAILED)
        if not request.decoding:
            request.avoid.add(request.instance)
        self._book.leave(request)
        return self._retry(request, Verdict(event.code, event.message, Cause.FAILED), now)

    def _stall(self, request: OpenRequest, now: float) -> list[Action]:
        instance = request.instance
        self._book.accept(request, now)
        if not request.decoding:
            request.avoid.add(instance)
        self._book.leave(request)
        self.view.suspect(instance, now)
        return self._retry(request, Verdict(Code.WORKER_LOST, f"{instance} made no progress", Cause.STALLED), now)

    def _retry(self, request: OpenRequest, why: Verdict, now: float) -> list[Action]:
        """Withdraw an attempt that is over for us and start the next one, unless it was the last."""
        return [*self._requeue(request, why, now), *self._draw(request.scenario, now)]

    def _requeue(self, request: OpenRequest, why: Verdict, now: float) -> list[Action]:
        withdraw = Withdraw(request.request_id, request.attempt, why.cause)
        verdict = request.failed(why.code, why.message, self._rules)
        if verdict is None and request.ends_at <= now:
            verdict = Verdict(Code.DEADLINE, f"no first token in time; the last attempt: {why.message}", Cause.DEADLINE)
        if verdict is not None:
            return [withdraw, *self._endings.refuse(request, verdict.code, verdict.message, verdict.cause)]
        self._book.wait(request, why.cause)
        return [withdraw]

    # ---- the fleet

    def _see(self, message: Status | ScenarioMap, now: float) -> list[Action]:
        actions = self._lose(self.view.see(message, now), now)
        scenario = message.scenario
        if scenario in self._book.waiting:
            self._scarcity.note(scenario, now, exists=self.view.exists(scenario, Role.PREFILL))
            actions += self._draw(scenario, now)
        return actions

    def _lose(self, lost: list[Lost], now: float) -> list[Action]:
        if not lost:
            return []
        actions: list[Action] = []
        for loss in lost:
            for request in self._book.lose(loss.instance):
                if request.phase is Phase.HELD and loss.died:
                    request.died_with(loss.instance, now, self._rules)
                self._book.release(request)
                text = f"{loss.instance} is gone ({loss.reason})"
                actions += self._requeue(request, Verdict(Code.WORKER_LOST, text, Cause.LOST), now)
        for scenario in self._book.waiting:
            self._scarcity.note(scenario, now, exists=self.view.exists(scenario, Role.PREFILL))
        return actions + self._draw_all(now)

    def _draw_all(self, now: float) -> list[Action]:
        return [action for scenario in list(self._book.waiting) for action in self._draw(scenario, now)]

    def _draw(self, scenario: str, now: float) -> list[Action]:
        """Offer one waiting request to each slot that is free as far as we know; then keep the wait bounded."""
        actions: list[Action] = []
        while (choice := self._choose(scenario, now)) is not None:
            actions.append(self._book.offer(*choice, now))
        waiting = self._book.waiting[scenario]
        while waiting.fresh > self._rules.max_waiting:
            actions += self._endings.displace(waiting.most())
        return actions

    def _choose(self, scenario: str, now: float) -> tuple[OpenRequest, str] | None:
        """Pair the first request that suits with the best worker.

        A request that was rejected or failed by a worker lets another one go first there, once: so it neither blocks
        the wait with what that worker cannot take, nor starves.
        """
        waiting = self._book.waiting[scenario]
        if not self._bus_up or not len(waiting):
            return None
        best = self.view.best(scenario, Role.PREFILL, now)
        if best is None:
            return None
        passed: list[OpenRequest] = []
        for request in islice(waiting.order(now), self._rules.lookahead):
            instance = self.view.best(scenario, Role.PREFILL, now, exclude=request.avoid)
            if instance is not None:
                for other in passed:
                    other.avoid.discard(instance)
                return request, instance
            passed.append(request)
        return passed[0], best
