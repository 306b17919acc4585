"""Chooses the prefill of each request at a gateway and sees every request to its one ending.

Owns the rules; the requests are in the book, the workers in the view. Sends nothing and sees no token: of a stream it
hears only the first token, the hand-off and the end.
"""

from collections.abc import Collection, Mapping
from typing import assert_never

from shared.errors import Code
from shared.messages import ScenarioMap, Status
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
from shared.policy.hedging import HedgeBudget
from shared.policy.pairing import Pairing
from shared.policy.placement import FleetView, Lost
from shared.policy.routes import RouteRules, Routes
from shared.policy.scarcity import Scarcity
from shared.policy.suspects import Suspects
from shared.policy.world import BusDown, BusUp, MapSeen, NobodyThere, PulseSeen, StatusSeen, Tick


class Dispatcher:
    """A state machine per request. Every request that arrives ends once: Ended, CancelledByClient or one Refuse."""

    def __init__(
        self,
        view: FleetView,
        rules: DispatchRules | None = None,
        routes: Mapping[str, RouteRules] | None = None,
    ) -> None:
        self.view = view
        self._rules = rules or DispatchRules()
        self._book = Book(view, self._rules)
        self._hedges = HedgeBudget(self._rules)
        self._scarcity = Scarcity(self._rules)
        self._suspects = Suspects(self._rules)
        self._endings = Endings(self._book, view, self._scarcity, self._suspects, self._rules)
        self._routes = Routes(view, routes)
        self._pairing = Pairing(view, self._book, self._suspects, self._routes, self._rules)
        self._bus_up = True

    @property
    def open(self) -> int:
        """Requests not yet ended."""
        return len(self._book)

    def waiting(self, scenario: str) -> int:
        """Count the scenario's requests without a slot."""
        return len(self._book.waiting[scenario]) if scenario in self._book.waiting else 0

    def open_of(self, scenario: str) -> int:
        """Count the scenario's requests not yet ended."""
        return self._book.of(scenario)

    def prefer(self, scenario: str, strategies: tuple[str, ...]) -> None:
        """Ask the groups of these strategies first from now on, in this order; the others after them."""
        self._routes.prefer(scenario, strategies)

    def holding(self) -> Collection[str]:
        """Name the instances where requests of ours are: those to be probed."""
        return self._book.holding()

    def where(self, request_id: str) -> str | None:
        """Say which worker has a request; None where none has it, as far as is known."""
        request = self._book.get(request_id)
        return request.instance if request is not None and request.phase is Phase.HELD else None

    def next_deadline(self) -> float | None:
        """Say when a Tick is due at the latest; ask again after each event."""
        first = self._book.next_deadline()
        for part in (self._scarcity, self._suspects, self.view):
            at = part.next_deadline()
            if at is not None and (first is None or at < first):
                first = at
        return first

    def handle(self, event: Event, now: float) -> list[Action]:
        """Say what to do, in this order, because of the event. That of an older attempt does nothing."""
        actions = self._lose(self.view.tick(now), now)
        actions += self._endings.overdue(now)
        actions += self._draw_all(now) if self._suspects.acquit(now) else []
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
            case NobodyThere(instance):
                actions += self._lose(self.view.nobody_there(instance, now), now)
            case BusDown() | BusUp() | Tick():
                if not isinstance(event, Tick):
                    self._bus_up = isinstance(event, BusUp)
                    self.view.probing.bus(now, up=self._bus_up)
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
                self._accept(request, now)
                self._begin(request, now)
                self._hedges.went_on(request.request_id)
            case Ended():
                self._accept(request, now)
                self._endings.well(request)
                actions = self._draw(request.scenario, now) if request.suspect else []
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
        if not isinstance(event, OfferUnanswered):
            self.view.hear(now)
            self.view.probing.heard(event.instance, now)
        match event:
            case OfferAccepted():
                self._accept(request, now)
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
        self._scarcity.note(scenario, now, exists=self._routes.exist(scenario))
        if (refusal := self._endings.at_the_door(event, now)) is not None:
            return [refusal]
        request = self._book.arrive(event, now)
        actions = self._draw(scenario, now)
        if self._book.get(event.request_id) is request and request.phase is Phase.WAITING:
            actions += self._endings.too_late(request, now)
        return actions

    def _accept(self, request: OpenRequest, now: float) -> None:
        if request.phase is Phase.OFFERED:
            self._book.accept(request, now)
            self._routes.learn(request)

    def _begin(self, request: OpenRequest, now: float) -> None:
        """Note that the client has a token of the last attempt, and of which revision of the model."""
        self._book.begin(request)
        if request.phase is not Phase.HELD:
            return
        request.revision = self._routes.revision_at(request, request.revision)
        if request.local:  # its prompt is computed, and it is where it will stay
            self._book.hand_off(request, request.instance, now)

    def _reject(self, request: OpenRequest, event: OfferRejected, now: float) -> list[Action]:
        self._book.reject(request)
        if not event.retryable:
            return self._endings.refuse(request, event.code, event.message, Cause.REJECTED)
        request.avoid |= {event.instance}
        self._book.wait(request, Cause.REJECTED)
        return self._draw(request.scenario, now)

    def _give_up(self, request: OpenRequest, now: float) -> list[Action]:
        request.avoid |= {request.instance}
        self._book.give_up(request, now)
        self._book.wait(request, Cause.UNANSWERED)
        withdraw = Withdraw(request.request_id, request.attempt, Cause.UNANSWERED)
        return [withdraw, *self._draw(request.scenario, now)]

    def _hand_off(self, request: OpenRequest, decode: str, now: float) -> list[Action]:
        self.view.hear(now)
        self._accept(request, now)
        if request.decoding and request.instance == decode:
            return []
        self._book.hand_off(request, decode, now)
        if self.view.lost(decode):  # the word of its loss was faster
            self._book.leave(request)
            return self._retry(request, Verdict(Code.WORKER_LOST, f"{decode} is gone", Cause.LOST), now)
        return []

    def _fail(self, request: OpenRequest, event: AttemptFailed, now: float) -> list[Action]:
        self._accept(request, now)
        if not event.retryable:
            return self._endings.refuse(request, event.code, event.message, Cause.FAILED)
        if not request.decoding:
            request.avoid |= {request.instance}
        self._book.leave(request)
        return self._retry(request, Verdict(event.code, event.message, Cause.FAILED), now)

    def _stall(self, request: OpenRequest, now: float) -> list[Action]:
        """Move it elsewhere, within the budget; else it stays where it is, and the edge asks again."""
        instance = request.instance
        self.view.suspect(instance, now)
        everybody = self._book.of(request.scenario)
        if not self._hedges.take(request.scenario, request.request_id, instance, everybody, now):
            return []
        self._accept(request, now)
        if not request.decoding:
            request.avoid |= {instance}
        self._book.leave(request)
        return self._retry(request, Verdict(Code.WORKER_LOST, f"{instance} made no progress", Cause.STALLED), now)

    def _retry(self, request: OpenRequest, why: Verdict, now: float) -> list[Action]:
        """Withdraw an attempt that is over for us and start the next one, unless it was the last."""
        return [*self._requeue(request, why, now), *self._draw(request.scenario, now)]

    def _requeue(self, request: OpenRequest, why: Verdict, now: float) -> list[Action]:
        withdraw = Withdraw(request.request_id, request.attempt, why.cause)
        verdict = request.failed(why, self._rules)
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
            self._scarcity.note(scenario, now, exists=self._routes.exist(scenario))
            actions += self._draw(scenario, now)
        return actions

    def _lose(self, lost: list[Lost], now: float) -> list[Action]:
        if not lost:
            return []
        actions: list[Action] = []
        for loss in lost:
            self._hedges.lost(loss.instance)
            fallen = self._book.lose(loss.instance)
            if loss.died:
                held = [request for request in fallen if request.phase is Phase.HELD]
                self._suspects.died(held, loss.instance, now)
            for request in fallen:
                self._book.release(request)
                text = f"{loss.instance} is gone ({loss.reason})"
                actions += self._requeue(request, Verdict(Code.WORKER_LOST, text, Cause.LOST), now)
        for scenario in self._book.waiting:
            self._scarcity.note(scenario, now, exists=self._routes.exist(scenario))
        return actions + self._draw_all(now)

    def _draw_all(self, now: float) -> list[Action]:
        return [action for scenario in list(self._book.waiting) for action in self._draw(scenario, now)]

    def _draw(self, scenario: str, now: float) -> list[Action]:
        """Offer one waiting request to each slot that is free as far as we know; then keep the wait bounded."""
        actions: list[Action] = []
        while self._bus_up and (pair := self._pairing.choose(scenario, now)) is not None:
            actions.append(self._book.offer(*pair, now))
        waiting = self._book.waiting[scenario]
        while waiting.fresh > self._rules.max_waiting:
            actions += self._endings.displace(waiting.most())
        return actions
