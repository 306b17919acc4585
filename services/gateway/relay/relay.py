"""Runs the relay: tells the dispatcher what happens and performs what it decides.

Owns the open calls and their records. Chooses no worker, speaks to no client.
"""

import itertools
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any, Final

from services.gateway.metrics import Metrics
from services.gateway.reasons import GATEWAY_FULL, reason_of
from services.gateway.refusals import Refused
from services.gateway.relay.calls import Call
from services.gateway.relay.offers import Offers
from services.gateway.relay.record import Record
from services.gateway.relay.records import Records
from services.gateway.relay.waking import Waking
from services.gateway.traffic import TrafficBook
from shared.bus import Delivery
from shared.errors import BatonError, Cancelled, Code, MalformedMessage, Overloaded, Unavailable
from shared.messages import Finish, Finished, Frame, Request, ToGateway, decode
from shared.policy.attempts import NOBODYS_FAULT
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    Action,
    Arrived,
    AttemptFailed,
    CancelledByClient,
    Cause,
    Ended,
    Event,
    FirstToken,
    HandedOff,
    Offer,
    OfferAccepted,
    OfferUnanswered,
    Refuse,
    Withdraw,
)
from shared.policy.placement import FleetView
from shared.policy.world import Tick
from shared.tasks import Tasks
from shared.telemetry import speak_of

_LOST: Final = (Cause.LOST, Cause.STALLED, Cause.DEADLINE)
"""Why an attempt ends badly of which no worker said so."""
_REFUSED: Final = (Cause.DEADLINE, Cause.FULL, Cause.DISPLACED, Cause.CROWDED, Cause.ABSENT)
"""Why a request may end for want of a worker."""


class Relay:
    """See the module. Everything happens on the event loop's thread."""

    def __init__(
        self,
        gateway: str,
        *,
        view: FleetView,
        dispatcher: Dispatcher,
        offers: Offers,
        tasks: Tasks,
        metrics: Metrics,
        traffic: TrafficBook,
        max_streams: int,
    ) -> None:
        self.records = Records(self, view.current)
        self._heard, self._group_of = view.probing.heard, view.group
        self._gateway, self._dispatcher, self._offers = gateway, dispatcher, offers
        self._tasks, self._metrics, self._traffic = tasks, metrics, traffic
        self._max_streams = max_streams
        self._calls: dict[str, Call] = {}  # by the request id of each choice
        self._events: deque[Event] = deque()
        self._pumping = False
        self._waking = Waking(dispatcher.next_deadline, lambda: self.handle(Tick()))
        # numbers of an earlier life of this gateway never come again, so frames meant for it hit nothing
        self._numbers = itertools.count(int(time.time()) << 20)

    def __len__(self) -> int:
        return len(self._calls)

    # ---- calls -----------------------------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """Take a call on: each of its choices asks for a worker. `close` must follow, whatever happens."""
        traffic = self._traffic.of(call.scenario.name)
        for record in call.records:
            traffic.arrive(record)
        try:
            self.enter(call)
        except Overloaded:
            traffic.refused += len(call.records)
            raise
        self.place(call)

    def enter(self, call: Call) -> None:
        """Know a call's choices, which ask for nothing yet. Raises Overloaded."""
        records = list(call.open.values())
        if len(self._calls) + len(records) > self._max_streams:
            text = f"this gateway already has {len(self._calls)} of at most {self._max_streams} streams open"
            raise Overloaded(text, reason=GATEWAY_FULL)
        for record in records:
            record.stream = next(self._numbers)
            self.records.add(record)
            self._calls[record.request_id] = call

    def place(self, call: Call) -> None:
        """Ask for a worker for each choice that is open."""
        for record in list(call.open.values()):
            what = (record.request_id, call.scenario.name, record.prompt_tokens, call.deadline, call.expires)
            whose = (call.priority, call.grant.caller.tenant, call.grant.caller.weight)
            begun = record.expected > 0
            self.handle(Arrived(*what, *whose, call.wait_by, record.before, begun, record.prefix))

    def close(self, call: Call, error: BatonError | None = None) -> None:
        """End a call; whatever of it still runs is cancelled. `error` is why, unless the client left. Idempotent."""
        call.fail(error or Cancelled("the client has left"))
        for record in list(call.open.values()):
            del call.open[record.request_id]
            self.records.drop(record)
            if record.guard is not None:
                record.guard.close()
            self.handle(CancelledByClient(record.request_id))

    def end(self, record: Record, reason: Finish) -> None:
        """End a choice early, and well: its tokens so far count, whoever computes more is told to stop. Idempotent."""
        call = self._calls.get(record.request_id)
        if call is None or not self.records.holds(record):
            return
        self.records.drop(record)
        prompt, new = record.prompt_tokens, record.expected
        self._conclude(call, record, Finished(record.stream, record.attempt, reason, new, prompt, 0))
        self.handle(CancelledByClient(record.request_id))

    def complete(self, call: Call, record: Record, finished: Finished) -> None:
        """End a choice of which everything is there already: no worker is asked for it."""
        self.records.drop(record)
        record.sink.finish(finished.reason)
        self._calls.pop(record.request_id, None)
        self._conclude(call, record, finished)

    def _conclude(self, call: Call, record: Record, finished: Finished) -> None:
        self._traffic.of(call.scenario.name).finish(record, finished, time.monotonic())
        if record.guard is None:
            call.finish(record, finished)
        else:
            record.guard.settle(finished, partial(call.finish, record))

    def cut(self, error: BatonError) -> None:
        """End every call that is open."""
        for call in set(self._calls.values()):
            self.close(call, error)

    # ---- what the dispatcher decides -------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Tell the dispatcher, and perform what it asks for, in order."""
        self._events.append(event)
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._events:
                event = self._events.popleft()
                actions = self._dispatcher.handle(event, time.monotonic())
                for action in actions:
                    self._perform(action)
                self._forget(event, actions)
        finally:
            self._pumping = False
        self._waking.arm()

    def _perform(self, action: Action) -> None:
        call = self._calls.get(action.request_id)
        if call is None:
            return
        match action:
            case Offer():
                self._offer(call, action)
            case Withdraw():
                self._metrics.withdrawn.labels(call.scenario.name, str(action.cause)).inc()
                call.journal.withdrawn(action.attempt, action.cause)
                record = call.open.get(action.request_id)
                if record is not None and action.cause in _LOST:
                    self._traffic.of(call.scenario.name).fail(record)
                work = self._offers.withdraw(call.scenario.name, action.request_id, action.attempt)
                self._spawn(work, f"withdraw {action.request_id}")
            case Refuse():
                record = call.open.pop(action.request_id, None)
                if record is not None:
                    self.records.drop(record)
                    if action.cause in _REFUSED:
                        self._traffic.of(call.scenario.name).refuse(record)
                    reason = reason_of(action.code, action.cause)
                    came = f"; the stream had come to token {record.expected}" if record.expected else ""
                    self.close(call, Refused(action.code, action.message + came, action.retry_after_s, reason))

    def _forget(self, event: Event, actions: list[Action]) -> None:
        """Drop the requests that are over for the dispatcher too; their last Withdraw is performed."""
        if isinstance(event, Ended | CancelledByClient):
            self._calls.pop(event.request_id, None)
        for action in actions:
            if isinstance(action, Refuse):
                self._calls.pop(action.request_id, None)

    def _offer(self, call: Call, offer: Offer) -> None:
        record = call.open.get(offer.request_id)
        if record is None:
            return  # its cancellation is the next event
        self._metrics.attempts.labels(call.scenario.name, str(offer.cause)).inc()
        self._metrics.routes.labels(call.scenario.name, offer.kind).inc()
        call.journal.offered(offer.request_id, offer.attempt, offer.instance, offer.cause, offer.route)
        if (reason := record.over(call.scenario.prompter)) is not None:  # only the word of its end was lost
            new = record.expected
            self.complete(call, record, Finished(record.stream, offer.attempt, reason, new, record.prompt_tokens))
            self._events.append(Ended(offer.request_id, offer.attempt))
            return
        request = record.begin(offer.attempt, self._gateway)
        record.group = self._group_of(offer.instance)
        if not self._spawn(self._ask(call, request, offer.instance), f"offer {offer.request_id}"):
            self._events.append(OfferUnanswered(offer.request_id, offer.attempt, offer.instance))

    async def _ask(self, call: Call, request: Request, instance: str) -> None:
        speak_of(request.request_id, call.journal.span)  # the task may have begun in that of another request
        event = await self._offers.ask(call.scenario.name, request, instance, call.journal.span)
        record = call.open.get(request.request_id)
        if isinstance(event, OfferAccepted) and record is not None and record.attempt == request.attempt:
            call.journal.accepted(request.attempt, instance)
            self._traffic.of(call.scenario.name).take(record, time.monotonic())
            call.admit()
        self.handle(event)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> bool:
        try:
            _ = self._tasks.spawn(work, name=name)
        except Unavailable:  # too many tasks, or closing
            return False
        return True

    def stop(self) -> None:
        """Wake nobody any more."""
        self._waking.stop()

    # ---- what the frames say ---------------------------------------------------------------------------------------

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a message from the frames subject."""
        try:
            message: ToGateway = decode(delivery.data, ToGateway, "frame")
        except MalformedMessage:
            self.records.counts.malformed += 1
            return
        if isinstance(message, Frame):
            self._heard(message.instance, time.monotonic())
            self.records.take(message)
        else:
            self.records.hand_off(message)

    def on_first_token(self, record: Record) -> None:
        """See Listener."""
        call = self._calls[record.request_id]
        self._traffic.of(call.scenario.name).first_token(record, call.journal.arrived, time.monotonic())
        call.journal.first_token()
        call.admit()
        self.handle(FirstToken(record.request_id, record.attempt))

    def on_handed_off(self, record: Record, instance: str) -> None:
        """See Listener."""
        self._calls[record.request_id].journal.handed_off(record.attempt, instance)
        self.handle(HandedOff(record.request_id, record.attempt, instance))

    def on_finished(self, record: Record, finished: Finished) -> None:
        """See Listener."""
        call = self._calls.get(record.request_id)
        if call is None:
            return  # the last event was one too many for a slow client, which was cut off
        self._conclude(call, record, finished)
        self.handle(Ended(record.request_id, finished.attempt))

    def on_failed(self, record: Record, attempt: int, code: Code, message: str, *, retryable: bool) -> None:
        """See Listener."""
        if code not in NOBODYS_FAULT:
            self._traffic.of(self.scenario_of(record)).fail(record)
        self.handle(AttemptFailed(record.request_id, attempt, code, message, retryable=retryable))

    def open_records(self) -> Iterator[tuple[str, Record]]:
        """Name every stream with its scenario; nothing may change meanwhile."""
        return ((self._calls[record.request_id].scenario.name, record) for record in self.records)

    def scenario_of(self, record: Record) -> str:
        """Which scenario a stream is of."""
        return self._calls[record.request_id].scenario.name

    def first_token_s(self, record: Record) -> float:
        """How long the scenario lets a first token take."""
        return self._calls[record.request_id].scenario.first_token_s
