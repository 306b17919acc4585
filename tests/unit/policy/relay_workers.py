"""The workers' end of the relay: prefills with the real admission, decodes as sets of attempts, and the bad pipe.

Nothing is decided about requests here, and nothing moves by itself: a message lies in the pipe until it is delivered.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.errors import Code
from shared.messages import Epoch, State, Status
from shared.policy.admission import Admitted, PrefillAdmission
from shared.policy.dispatch_events import (
    AttemptFailed,
    Event,
    FirstToken,
    HandedOff,
    OfferAccepted,
    OfferRejected,
)
from shared.policy.world import StatusSeen
from tests.unit.policy.builders import mapped, status

SLOTS = 2
PREFILLS = ("p1", "p2", "p3")
DECODES = ("d1", "d2")
Key = tuple[str, int]


@dataclass
class Worker:
    """One incarnation of a prefill or decode."""

    name: str
    epoch: Epoch
    number: int = 0
    admission: PrefillAdmission = field(default_factory=lambda: PrefillAdmission(SLOTS, 100))
    held: dict[Key, None] = field(default_factory=dict)
    draining: bool = False


class RelayWorkers(ABC):
    """Whoever lives at the far end of the pipe. The gateway's end is left open."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pipe: list[Callable[[], None]] = []
        self.workers: dict[str, Worker] = {}
        self.epochs = 0
        self.version = 0

    # ---- what the gateway hears

    @abstractmethod
    def feed(self, event: Event) -> None: ...

    @abstractmethod
    def hear_answer(self, event: OfferAccepted | OfferRejected) -> None: ...

    @abstractmethod
    def hear_ending(self, name: str, attempt: int) -> None: ...

    # ---- the pipe

    def send(self, message: Callable[[], None]) -> None:
        self.pipe.append(message)

    def deliver(self, index: int) -> None:
        self.pipe.pop(index % len(self.pipe))()

    def deliver_all(self) -> None:
        while self.pipe:
            self.deliver(0)

    # ---- the workers

    def start(self, name: str) -> None:
        self.epochs += 1
        self.workers[name] = Worker(name, (1, self.epochs))

    def announce(self) -> None:
        """The monitor's map of whoever lives."""
        self.version += 1
        listed = [name for name, worker in self.workers.items() if not worker.draining]
        epochs = {name: self.workers[name].epoch for name in listed}
        event = mapped(*listed, version=self.version, epochs=epochs)
        self.send(lambda: self.feed(event))
        for name in self.workers:
            self.beat(name)

    def beat(self, name: str) -> None:
        worker = self.workers[name]
        worker.number += 1
        free = worker.admission.free if name in PREFILLS else 9
        state = State.DRAINING if worker.draining else State.READY
        said: Status = status(
            name, free=free, slots=max(SLOTS, free), epoch=worker.epoch, number=worker.number, state=state
        )
        self.send(lambda: self.feed_status(said))

    def feed_status(self, said: Status) -> None:
        self.feed(StatusSeen(said))

    def hear_offer(self, instance: str, name: str, attempt: int) -> None:
        worker = self.workers.get(instance)
        if worker is None:
            return
        verdict = worker.admission.offer(name, attempt, kv_bytes=1, deadline=self.now + 1, now=self.now)
        if isinstance(verdict, Admitted):
            for older in verdict.supersedes:
                self.free(worker, (name, older))
            worker.held[name, attempt] = None
            self.send(lambda: self.hear_answer(OfferAccepted(name, attempt, instance)))
        else:
            refused = OfferRejected(name, attempt, instance, verdict.code, verdict.message, verdict.retryable)
            self.send(lambda: self.hear_answer(refused))

    def hear_cancel(self, instance: str, name: str, attempt: int) -> None:
        worker = self.workers.get(instance)
        if worker is not None:
            for key in worker.admission.cancel(name, attempt):
                self.free(worker, key)
            for key in [key for key in worker.held if key[0] == name and key[1] <= attempt]:
                self.free(worker, key)

    def free(self, worker: Worker, key: Key) -> None:
        worker.held.pop(key, None)
        worker.admission.left(*key)
        self.beat(worker.name)

    def work(self, name: str, *, fails: Code | None = None, decode: str = "d1") -> None:
        """The worker finishes the oldest attempt it holds, well or badly."""
        worker = self.workers[name]
        if not worker.held:
            return
        key = next(iter(worker.held))
        self.free(worker, key)
        if fails is not None:
            self.send(lambda: self.feed_failure(AttemptFailed(*key, fails, "by chance")))
        elif name in DECODES or decode not in self.workers:
            self.send(lambda: self.hear_ending(*key))
        else:
            self.send(lambda: self.feed(FirstToken(*key)))
            self.send(lambda: self.feed(HandedOff(*key, decode)))
            self.workers[decode].held[key] = None

    def feed_failure(self, event: AttemptFailed) -> None:
        self.feed(event)

    def kill(self, name: str) -> None:
        del self.workers[name]
