"""A gateway in simulated time: performs what its `Dispatcher` decides, and tells it what comes of it.

Owns what each client has got so far. Decides nothing.
"""

from collections.abc import Callable
from math import inf
from typing import Final

from msgspec import Struct

from shared.errors import Code
from shared.messages import ScenarioMap, Status
from shared.policy.admission import Refused
from shared.policy.affinity import MOST, boundary
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    Action,
    Arrived,
    AttemptFailed,
    Ended,
    Event,
    FirstToken,
    HandedOff,
    Offer,
    OfferAccepted,
    OfferRejected,
    OfferUnanswered,
    Refuse,
    Stalled,
    Withdraw,
)
from shared.policy.placement import FleetView, ViewRules
from shared.policy.world import MapSeen, NobodyThere, StatusSeen, Tick
from simulator.cluster.attempt import Attempt
from simulator.cluster.bus import Bus
from simulator.cluster.spec import FleetSpec, ScenarioSpec
from simulator.cluster.worker import Worker
from simulator.measures.outcome import Outcome
from simulator.workload.arrival import Arrival

MIXED = 0x9E3779B1  # spreads ids over the ring, which is one of 32 bits


LATER: Final = (StatusSeen, OfferAccepted, FirstToken, HandedOff, Ended)
"""Events that lead to nothing more than that a deadline is later, or none: no tick is due any sooner for them."""


class Open(Struct, eq=False):
    """A request until its one ending."""

    request_id: str
    outcome: Outcome
    deadline: float
    expires: float
    delivered: int = 0  # by attempts that are over
    attempt: Attempt | None = None


class Gateway:
    """One. `workers` finds an instance by name; `record` hears of each request's end."""

    def __init__(
        self, name: str, bus: Bus, spec: FleetSpec, workers: dict[str, Worker], record: Callable[[Outcome], None]
    ) -> None:
        self.name = name
        self._bus = bus
        self._clock = bus.clock
        self._spec = spec
        self._scenarios = {one.name: one for one in spec.scenarios}
        self._workers = workers
        self._record = record
        view = FleetView(ViewRules(heartbeat_s=spec.heartbeat_s, misses=spec.misses), name)
        self.dispatcher = Dispatcher(view, spec.rules, {one.name: one.routes for one in spec.scenarios})
        self._open: dict[str, Open] = {}
        self._numbers = 0
        self._tick_at = inf
        bus.listen(self.learn)

    def __len__(self) -> int:
        return len(self._open)

    def learn(self, message: Status | ScenarioMap) -> None:
        """Hear a status or a map."""
        self._tell(MapSeen(message) if isinstance(message, ScenarioMap) else StatusSeen(message))

    def arrive(self, arrival: Arrival) -> None:
        """Take a client's request in."""
        now, scenario = self._clock.now, self._scenarios[arrival.scenario]
        self._numbers += 1
        request_id = f"{self.name}-{self._numbers}"
        first_s = min(scenario.first_token_s, scenario.timeout_s)
        one = Open(request_id, Outcome(arrival, now), now + first_s, now + scenario.timeout_s)
        self._open[request_id] = one
        self._tell(
            Arrived(
                request_id,
                arrival.scenario,
                arrival.input_tokens,
                one.deadline,
                one.expires,
                arrival.priority,
                arrival.tenant,
                wait_by=now + min(scenario.queue_s, first_s),
                prefix=marks(arrival, scenario) if scenario.routes.affinity else (),
            )
        )

    # ---- what workers say

    def accepted(self, attempt: Attempt, instance: str) -> None:
        """Hear that a worker holds the attempt."""
        one = self._current(attempt)
        if one is not None:
            one.outcome.attempts += 1
        self._tell(OfferAccepted(*attempt.key, instance))

    def rejected(self, attempt: Attempt, instance: str, refused: Refused) -> None:
        """Hear that a worker does not."""
        self._tell(OfferRejected(*attempt.key, instance, refused.code, refused.message, refused.retryable))

    def unanswered(self, attempt: Attempt, instance: str) -> None:
        """Notice that no answer comes."""
        self._tell(OfferUnanswered(*attempt.key, instance))

    def first_token(self, attempt: Attempt) -> None:
        """Hear the token that was sampled with the prompt."""
        one = self._current(attempt)
        if one is not None:
            self._begin(one, attempt)
            self._tell(FirstToken(*attempt.key))

    def handed_off(self, attempt: Attempt, decode: str) -> None:
        """Hear that a decode has the attempt."""
        if self._current(attempt) is not None:
            self._tell(HandedOff(*attempt.key, decode))

    def ended(self, attempt: Attempt) -> None:
        """Hear the last token."""
        one = self._current(attempt)
        if one is None:
            return
        self._begin(one, attempt)
        self._tell(Ended(*attempt.key))
        self._close(one, None)

    def failed(self, attempt: Attempt, code: Code, retryable: bool) -> None:  # noqa: FBT001  a message's field
        """Hear that the attempt is over."""
        if self._current(attempt) is not None:
            self._tell(AttemptFailed(*attempt.key, code, retryable=retryable))

    def nobody_there(self, instance: str) -> None:
        """Hear from NATS that nobody listens in an instance's name."""
        self._tell(NobodyThere(instance))

    def stalled(self, instance: str) -> None:
        """Notice that the streams at an instance stand still."""
        for one in list(self._open.values()):
            attempt = one.attempt
            if attempt is not None and self.dispatcher.where(one.request_id) == instance:
                self._tell(Stalled(*attempt.key))

    def _current(self, attempt: Attempt) -> Open | None:
        """The request, if that is its last attempt and nobody has withdrawn it."""
        one = self._open.get(attempt.key[0])
        return one if one is not None and one.attempt is attempt else None

    def _begin(self, one: Open, attempt: Attempt) -> None:
        outcome = one.outcome
        if outcome.first is None:
            outcome.first = self._clock.now
        outcome.cached = attempt.cached
        outcome.prefilled = attempt.computed - attempt.accepted

    # ---- what the dispatcher wants

    def _tell(self, event: Event) -> None:
        actions = self.dispatcher.handle(event, self._clock.now)
        for action in actions:
            self._perform(action)
        if not actions and isinstance(event, LATER) and self._tick_at < inf:
            return
        due = self.dispatcher.next_deadline()
        if due is not None and due < self._tick_at:
            self._tick_at = due
            self._clock.at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        if due == self._tick_at:
            self._tick_at = inf
            self._tell(Tick())

    def _perform(self, action: Action) -> None:
        one = self._open.get(action.request_id)
        if one is None:
            return
        match action:
            case Offer(attempt=number, instance=instance):
                one.outcome.offers += 1
                attempt = Attempt(
                    (one.request_id, number), one.outcome.arrival, one.delivered, one.deadline, one.expires, self
                )
                if one.delivered:  # its first token is there; it may take as long as the request may
                    attempt.deadline = one.expires
                one.attempt = attempt
                worker = self._workers.get(instance)
                if worker is None:
                    self._bus.say(self.unanswered, attempt, instance)
                else:
                    self._bus.say(worker.hear, attempt)
            case Withdraw():
                self._withdraw(one)
            case Refuse(code=code):
                self._withdraw(one)
                self._close(one, code)

    def _withdraw(self, one: Open) -> None:
        attempt, one.attempt = one.attempt, None
        if attempt is None:
            return
        one.delivered = attempt.delivered
        self._bus.say(_cancel, attempt)

    def _close(self, one: Open, code: Code | None) -> None:
        outcome, attempt = one.outcome, one.attempt
        outcome.ended = self._clock.now
        outcome.code = code
        outcome.tokens = one.delivered if attempt is None else attempt.delivered
        if attempt is not None:
            outcome.moved = max(0.0, attempt.moved - attempt.computed)
            outcome.prefill = attempt.prefill.name if attempt.prefill is not None else ""
            outcome.decode = attempt.decode.name if attempt.decode is not None else ""
            attempt.forget()
        del self._open[one.request_id]
        self._record(outcome)


def _cancel(attempt: Attempt) -> None:
    attempt.over = True
    for worker in (attempt.prefill, attempt.decode):
        if worker is not None and worker.up and not worker.frozen:
            worker.cancel(attempt)
    attempt.forget()


def marks(arrival: Arrival, scenario: ScenarioSpec) -> tuple[int, ...]:
    """Mark a prompt's beginnings as a gateway does, from its block ids; as far as whole blocks go.

    A boundary within a block is known by that block's id, so two prompts that part within it seem to part before it.
    """
    found: list[int] = []
    for place in range(MOST):
        end = boundary(place)
        number = (end - 1) // scenario.block_tokens
        if end > arrival.input_tokens or number >= len(arrival.blocks):
            break
        found.append((arrival.blocks[number] * MOST + place) * MIXED & 0xFFFFFFFF)
    return tuple(found)
