"""The gateway's end of the relay model: the real dispatcher, view and records, joined as the relay joins them.

Owns what is claimed of the client's stream, and checks it with every frame. Sends by putting messages into `outbox`.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import msgspec

from services.gateway.relay.record import Record
from services.gateway.relay.records import GAP_S, Records
from shared.errors import Code
from shared.messages import Epoch, Failed, Finish, Finished, Frame, HandedOff, Logprobs, ScenarioMap, State, Status
from shared.messages.requests import Sampling, Stopping
from shared.policy import dispatch_events as events
from shared.policy.attempts import Phase
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import DispatchRules, Event, Offer, Refuse, Withdraw
from shared.policy.placement import FleetView, ViewRules
from shared.policy.probing import ProbeRules
from shared.policy.world import MapSeen, NobodyThere, StatusSeen
from tests.model.explorer import Violation
from tests.model.freezing import freeze

NOW = 0.0
"""Time never passes in this model: whatever a deadline would do is a move of its own."""
FOREVER = 1e9
NAME = "r"
STREAM = 1
VIEW = ViewRules(penalty_s=0.0, probes=ProbeRules(confirm_s=0.0, settle_s=0.0))


class Glance(NamedTuple):
    """The gateway from outside."""

    ended: str
    attempt: int  # that may speak
    expected: int
    last_offer: int
    pending: tuple[tuple[int, str], ...]  # offers that wait for their answer
    held: bool  # some worker has the attempt that speaks, as far as is known
    gapped: bool
    holding: tuple[str, ...]  # instances that have something, as far as is known, and are not lost
    seen: frozenset[tuple[str, Epoch, int]]  # ready instances with the slots that they are thought to have
    silent: tuple[str, ...]  # instances that left the last offer unanswered


class Gateway:
    """One request, from its arrival to its one ending."""

    view_kind = FleetView

    def __init__(self, reference: tuple[int, ...], scenario_map: ScenarioMap, statuses: list[Status]) -> None:
        self.reference = reference
        self.outbox: list[tuple[Any, ...]] = []
        self.pending: dict[int, str] = {}  # offers that wait for their answer
        self.newest: dict[str, Epoch] = {}  # of each instance, as told to us
        self.last_offer = self.last_token = -1
        self.shown = 0
        self.ended = ""
        self._events: deque[Event] = deque()
        self._pumping = False
        self.view = self.view_kind(VIEW, "g")
        self.dispatcher = Dispatcher(self.view, DispatchRules())
        self.records = self.make_records(self.view.current)
        self.record = Record(
            request_id=NAME,
            prompt=b"\0\0\0\0",
            sampling=Sampling(),
            stopping=Stopping(max_tokens=len(reference)),
            deadline_ms=0,
            expires_ms=0,
            sink=self,
            text=self.text,
            stream=STREAM,
        )
        self.records.add(self.record)
        self.feed(MapSeen(scenario_map))
        for status in statuses:
            self.hear_status(status)

    def arrive(self) -> None:
        """The request comes."""
        self.feed(events.Arrived(NAME, "chat", 1, FOREVER, FOREVER))

    def make_records(self, current: Callable[[str, Epoch], bool]) -> Records:
        """Make what takes the frames in; the mutants make it worse."""
        return Records(self, current)

    # ---- as the relay does

    def feed(self, event: Event) -> None:
        self._events.append(event)
        if self._pumping:
            return
        self._pumping = True
        while self._events:
            for action in self.dispatcher.handle(self._events.popleft(), NOW):
                self._perform(action)
        self._pumping = False

    def _perform(self, action: events.Action) -> None:
        match action:
            case Offer(_, attempt, instance):
                if attempt <= self.last_offer:
                    raise Violation(f"attempt {attempt} is offered after {self.last_offer}")
                self.last_offer = attempt
                self.record.begin(attempt, "g")
                self.pending[attempt] = instance
                self.outbox.append(("offer", instance, attempt, len(self.record.ids)))
            case Withdraw(_, attempt):
                self.outbox.append(("cancel", attempt))
            case Refuse(_, code, _, cause):
                self.records.drop(self.record)
                self._end(f"{code}: {cause}")

    def _end(self, how: str) -> None:
        if self.ended:
            raise Violation(f"ended twice: {self.ended}, {how}")
        self.ended = how

    def leave(self) -> None:
        """The client goes away."""
        self.records.drop(self.record)
        self._end("left")
        self.feed(events.CancelledByClient(NAME))

    # ---- messages

    def hear_status(self, status: Status) -> None:
        self.newest[status.instance] = max(self.newest.get(status.instance, (0, 0)), status.epoch)
        self.feed(StatusSeen(status))

    def hear_answer(self, instance: str, epoch: Epoch, attempt: int, code: str) -> None:
        if self.pending.pop(attempt, None) is None:
            return  # a request of the bus is answered once, and not after its timeout
        if code:
            self.feed(events.OfferRejected(NAME, attempt, instance, Code(code)))
        elif self.view.current(instance, epoch):
            self.feed(events.OfferAccepted(NAME, attempt, instance))
        else:
            self.feed(events.OfferUnanswered(NAME, attempt, instance))

    def time_out(self, attempt: int) -> None:
        self.feed(events.OfferUnanswered(NAME, attempt, self.pending.pop(attempt)))

    def hear_handed(self, decode: str, epoch: Epoch, attempt: int) -> None:
        self.records.hand_off(HandedOff(STREAM, NAME, attempt, decode, epoch))

    def hear_frame(self, instance: str, epoch: Epoch, attempt: int, index: int, kind: str) -> None:
        """Take a frame in as ever; none that is stale may change anything."""
        ended: list[Finished | Failed] = []
        if kind == "finished":
            ended = [Finished(STREAM, attempt, Finish.LENGTH, len(self.reference), 1)]
        elif kind == "failed":
            ended = [Failed(STREAM, attempt, Code.KV_REFUSED, "", retryable=True)]
        columns = ([STREAM], [attempt], [index], [self.reference[index]], ["x"]) if index >= 0 else ([],) * 5
        before = self._client()
        allowed = epoch >= self.newest.get(instance, (0, 0)) and attempt == self.record.attempt
        self.records.take(Frame(instance, epoch, *columns, ended=ended))
        if self._client() != before and not allowed:
            raise Violation(f"a stale frame was taken: {instance} {epoch}, attempt {attempt}, index {index}")
        if len(self.record.ids) > before[0]:
            if attempt < self.last_token:
                raise Violation(f"a token of attempt {attempt} came after one of attempt {self.last_token}")
            self.last_token = attempt
        if self.record.ids != list(self.reference[: len(self.record.ids)]):
            raise Violation(f"the client has {self.record.ids}")

    def _client(self) -> tuple[Any, ...]:
        record = self.record
        return (len(record.ids), self.shown, len(record.early), record.ending, self.ended, record.attempt)

    def beat(self, status: Status) -> None:
        """Hear a status that is newer than all before it."""
        worker = self.view._workers.get(status.instance)
        last = worker.status if worker is not None else None
        number = 1 + (last.number if last is not None and last.epoch == status.epoch else 0)
        self.hear_status(msgspec.structs.replace(status, number=number))

    def nobody_there(self, instance: str) -> None:
        for _ in range(2):
            self.feed(NobodyThere(instance))

    def stall(self) -> None:
        self.feed(events.Stalled(NAME, self.record.attempt))

    def give_up_gap(self) -> None:
        self.records.sweep(2 * GAP_S)

    # ---- for the model

    def tell(self, what: str, *arguments: Any) -> tuple[tuple[Any, ...], ...]:
        """Let something happen; what the gateway says in answer."""
        getattr(self, what)(*arguments)
        said, self.outbox = tuple(self.outbox), []
        return said

    def glance(self) -> "Glance":
        """All that the model looks at."""
        record, view = self.record, self.view
        request = self.dispatcher._book.get(NAME)
        held = request is not None and request.phase is Phase.HELD and request.attempt == record.attempt
        return Glance(
            self.ended,
            record.attempt,
            record.expected,
            self.last_offer,
            tuple(sorted(self.pending.items())),
            held,
            record in self.records._gapped,
            tuple(sorted(name for name in self.dispatcher.holding() if not view.lost(name))),
            frozenset(
                (name, worker.status.epoch, worker.free)
                for name, worker in view._workers.items()
                if worker.status is not None and not worker.gone and worker.status.state is State.READY
            ),
            self._silent(),
        )

    def _silent(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, worker in self.view._workers.items() if worker.penalties))

    def value(self) -> Hashable:
        """All on which its future depends."""
        record = self.record
        return (
            freeze(self.dispatcher),
            (record.attempt, len(record.ids), record.fresh, record.handed_off),
            (freeze(record.early), freeze(record.ending), record in self.records._gapped),
            (self.ended, self.shown, self.last_offer, self.last_token),
            tuple(sorted(self.pending.items())),
            tuple(sorted(self.newest.items())),
            self._silent(),
        )

    # ---- the record's listener and sink

    def on_first_token(self, record: Record) -> None:
        self.feed(events.FirstToken(NAME, record.attempt))

    def on_handed_off(self, record: Record, instance: str) -> None:
        self.feed(events.HandedOff(NAME, record.attempt, instance))

    def on_finished(self, record: Record, finished: Finished) -> None:
        if len(record.ids) != len(self.reference):
            raise Violation(f"finished with {len(record.ids)} tokens of {len(self.reference)}")
        self._end("finished")
        self.feed(events.Ended(NAME, finished.attempt))

    def on_failed(self, record: Record, attempt: int, code: Code, message: str, *, retryable: bool) -> None:
        self.feed(events.AttemptFailed(NAME, attempt, code, message, retryable))

    def text(self, index: int, text: str) -> None:
        if self.ended or index != self.shown:
            raise Violation(f"token {index} is shown after {self.shown} others; ended: {self.ended or 'no'}")
        self.shown += 1

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        raise Violation("no log probabilities were asked for")

    def finish(self, reason: Finish) -> None:
        if self.ended:
            raise Violation(f"ended twice: {self.ended}, then well")
