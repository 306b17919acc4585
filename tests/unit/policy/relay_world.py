"""A gateway and its workers around one dispatcher, joined by a pipe that loses, repeats and reorders.

Nothing happens by itself: the test says which message moves, who works, who dies, how time passes. `check` holds after
every step. The workers and the pipe are in `relay_workers`.
"""

from collections import Counter

from shared.policy.attempts import Phase
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    Action,
    CancelledByClient,
    DispatchRules,
    Ended,
    Event,
    Offer,
    OfferAccepted,
    OfferRejected,
    OfferUnanswered,
    Refuse,
    Stalled,
    Withdraw,
)
from shared.policy.placement import FleetView
from shared.policy.routes import RouteRules
from shared.policy.shares import Shares
from shared.policy.world import PulseSeen, Tick
from tests.unit.policy.builders import arrived
from tests.unit.policy.relay_workers import DECODES, PREFILLS, Key, RelayWorkers

RULES = DispatchRules(
    max_waiting=3,
    max_open=12,
    attempts=3,
    losses=6,
    preemptions=4,
    grace_s=3.0,
    replay_grace_s=20.0,
    min_hedges=2,
    hedge_window_s=0.05,
)


def check_shares(shares: Shares) -> None:
    """The accounts of one priority agree with each other, and nobody empty is in them."""
    requests = [request for share in shares._shares.values() for request in share.requests]
    assert sorted(one.number for one in requests) == [one.number for one in shares]
    assert shares.cost == sum(one.cost for one in requests)
    for tenant, share in shares._shares.items():
        assert {one.tenant for one in share.requests} == {tenant}
        assert share.cost == sum(one.cost for one in share.requests)
    assert list(shares._turns) == sorted(shares._shares.values(), key=lambda share: share.turn)
    assert list(shares._held) == sorted(shares._shares.values(), key=lambda share: share.held)


class RelayWorld(RelayWorkers):
    """Everything but the dispatcher is honest and simple; only the pipe is bad."""

    def __init__(self, routes: RouteRules | None = None) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(FleetView(), RULES, {"chat": routes or RouteRules()})
        self.unanswered: dict[Key, str] = {}
        self.submitted = 0
        self.ended: dict[str, str] = {}
        self.attempts: dict[str, int] = {}  # highest offered
        self.withdrawn: dict[str, int] = {}  # highest withdrawn
        self.live: dict[str, int] = {}  # offered, and neither rejected nor withdrawn
        for name in (*PREFILLS, *DECODES):
            self.start(name)
        self.announce()
        self.deliver_all()

    # ---- the gateway

    def feed(self, event: Event) -> None:
        for action in self.dispatcher.handle(event, self.now):
            self.perform(action)
        self.check()

    def perform(self, action: Action) -> None:
        name = action.request_id
        assert name not in self.ended, "an ended request acts no more"
        match action:
            case Offer(attempt=attempt, instance=instance):
                assert attempt > self.attempts.get(name, -1), "every offer has an attempt of its own"
                assert self.live.get(name) is None, "the attempt before was rejected or withdrawn"
                assert self.dispatcher.view._workers[instance].routable, "offered to a lost or excluded worker"
                assert not self.dispatcher.view.lost(instance)
                self.attempts[name] = self.live[name] = attempt
                self.unanswered[name, attempt] = instance
                self.send(lambda: self.hear_offer(instance, name, attempt))
            case Withdraw(attempt=attempt):
                assert self.live.pop(name, None) == attempt
                self.withdrawn[name] = attempt
                for worker in list(self.workers):
                    self.send(lambda worker=worker: self.hear_cancel(worker, name, attempt))  # type: ignore[misc]
            case Refuse(code=code):
                self.end(name, code)

    def end(self, name: str, how: str) -> None:
        assert name not in self.ended, "one ending"
        assert name not in self.live, "whoever may hold the request was told"
        self.ended[name] = how

    def arrive(self, *, patience: float, priority: int, tenant: str = "", tokens: int = 8) -> None:
        self.submitted += 1
        deadline, expires = self.now + patience, self.now + 10 * patience
        whose = {"priority": priority, "tenant": tenant, "tokens": tokens, "prefix": (tokens, priority)}
        self.feed(arrived(f"r{self.submitted}", deadline=deadline, expires=expires, **whose))  # type: ignore[arg-type]

    def cancel(self, name: str) -> None:
        was_open = self.is_open(name)
        actions = self.dispatcher.handle(CancelledByClient(name), self.now)
        for action in actions:
            self.perform(action)
        if was_open and name not in self.ended:
            self.end(name, "cancelled")
        self.check()

    def hear_ending(self, name: str, attempt: int) -> None:
        """Like the gateway: a Finished of the attempt that lives ends the stream; any other is dropped."""
        was_open = self.is_open(name)
        for action in self.dispatcher.handle(Ended(name, attempt), self.now):
            self.perform(action)
        if was_open and not self.is_open(name) and name not in self.ended:
            assert self.attempts[name] == attempt, "only the last attempt may end a request"
            self.live.pop(name, None)
            self.end(name, "finished")
        self.check()

    def is_open(self, name: str) -> bool:
        return self.dispatcher._book.get(name) is not None

    def time_out_offer(self, key: Key) -> None:
        instance = self.unanswered.pop(key)
        self.feed(OfferUnanswered(*key, instance))

    def hear_answer(self, event: OfferAccepted | OfferRejected) -> None:
        if self.unanswered.pop((event.request_id, event.attempt), None) is None:
            return  # the request/reply of the bus answers once, and not after its timeout
        if isinstance(event, OfferRejected) and self.live.get(event.request_id) == event.attempt:
            del self.live[event.request_id]
        self.feed(event)

    def advance(self, seconds: float) -> None:
        """Let time pass; whoever lives is heard, so silence means something."""
        target = self.now + seconds
        while (due := self.dispatcher.next_deadline()) is not None and due <= target:
            self.now = max(self.now, due)
            self.feed(Tick())
            after = self.dispatcher.next_deadline()
            assert after is None or after > self.now, "a tick at its time moves the deadline"
        self.now = target
        self.feed(PulseSeen())

    # ---- what always holds

    def check(self) -> None:
        book, view = self.dispatcher._book, self.dispatcher.view
        waiting = book.waiting["chat"]
        assert len(waiting.new()) == waiting.fresh <= RULES.max_waiting
        assert self.dispatcher.open <= RULES.max_open
        submitted = {f"r{number}" for number in range(1, self.submitted + 1)}
        assert set(book._requests) == submitted - set(self.ended), "open until it ends"
        lined = [request.request_id for request in waiting.order(self.now)]
        placed = [name for there in book._at.values() for name in there]
        assert sorted(lined + placed) == sorted(book._requests), "in one place each"
        for request in book._requests.values():
            assert request.request_id in book.ends, "whoever is open has an end"
            assert (request.phase is Phase.WAITING) == (request.request_id in lined)
        computing = Counter(one.instance for one in book._requests.values() if one.local)
        assert computing == book.local, "places of prompts that decodes compute"
        assert waiting._resumed_cost == sum(request.cost for request in waiting.resumed)
        for shares in waiting._shares.values():
            check_shares(shares)
        for name, worker in view._workers.items():
            there = list(book._at.get(name, {}).values())
            assert worker.unanswered == sum(request.phase is Phase.OFFERED for request in there)
            assert worker.open == sum(not request.decoding for request in there), "a stream leaked in the view"

    # ---- afterwards

    def heal(self) -> None:
        """All live, the pipe is good: whatever is open must end, and nobody may hold anything."""
        for name in (*PREFILLS, *DECODES):
            if name not in self.workers or self.workers[name].draining:
                self.start(name)
        self.announce()
        for _ in range(60):
            self.deliver_all()
            for name in (*PREFILLS, *DECODES):
                while self.workers[name].held:
                    self.work(name)
                self.beat(name)
            self.deliver_all()
            self.settle_lost_messages()
            self.now += 0.01
            if not self.dispatcher.open:
                break
        self.deliver_all()
        assert self.dispatcher.open == 0
        assert sorted(self.ended) == sorted(f"r{number}" for number in range(1, self.submitted + 1))
        assert all(not worker.admission.used for worker in self.workers.values())
        assert all(not worker.open and not worker.unanswered for worker in self.dispatcher.view._workers.values())
        assert not self.dispatcher._book._at

    def settle_lost_messages(self) -> None:
        """The timeouts of the gateway: an offer without answer, a stream without progress."""
        for key in list(self.unanswered):
            self.time_out_offer(key)
        for request in list(self.dispatcher._book._requests.values()):
            if request.phase is Phase.HELD:
                self.feed(Stalled(request.request_id, request.attempt))
