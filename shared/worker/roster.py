"""The roster of a worker: the attempts that are in, their answers and endings, and everyone's leaving.

Owns the tasks that carry attempts, by (request, attempt), and what is sent about them. Whether there is room is the
admission's decision; what is done for an attempt that is in, and freed after it, is the service's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar

from shared.bus import Bus, Delivery
from shared.errors import BatonError, Cancelled, Code, Draining, MalformedMessage
from shared.messages import Cancel, Failed, Rejected, Request, Value, decode
from shared.policy.known import Key
from shared.policy.orphans import Orphans
from shared.tasks import Tasks, happens
from shared.worker.frames import FrameSender, failed
from shared.worker.keeping import Keeping
from shared.worker.metrics import WorkerMetrics
from shared.worker.running import Running
from shared.worker.work import WorkMeter

R = TypeVar("R", bound=Running)
LEAVE_S: Final = 0.8
"""For attempts that were stopped to free what they hold; within the second that a drain may take longer."""

log = logging.getLogger(__name__)


class Superseded(BatonError):
    """Raised in an attempt whose request has a newer one here."""

    code = Code.STALE


class Admission(Protocol):
    """The part of both admissions that knows which attempts are unwanted."""

    def cancel(self, request_id: str, attempt: int) -> list[Key]:
        """Those held that are to be stopped."""
        ...

    def drain(self) -> None:
        """Take nothing new from now on."""
        ...


class Roster(Generic[R]):
    """Every attempt of one worker, from its acceptance until it holds nothing any more."""

    def __init__(
        self,
        name: str,
        admission: Admission,
        *,
        bus: Bus,
        tasks: Tasks,
        sender: FrameSender,
        metrics: WorkerMetrics,
        work: WorkMeter,
        keeping: Keeping,
        orphans: Orphans,
    ) -> None:
        self.name = name
        self.keeping = keeping
        self.orphans = orphans
        self._bus = bus
        self._tasks = tasks
        self._sender = sender
        self._metrics = metrics
        self._work = work
        self._admission = admission
        self._held: dict[Key, R] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[R]:
        """Those that are in; more may come and go meanwhile."""
        return iter(list(self._held.values()))

    def get(self, request_id: str, attempt: int) -> R | None:
        """The attempt, if it is in."""
        return self._held.get((request_id, attempt))

    def enter(self, running: R, body: Callable[[R], Coroutine[Any, Any, None]]) -> None:
        """Start the attempt's task, which calls `exit` when everything is freed. Raises Overloaded or Draining."""
        _ = self._tasks.spawn(body(running), name=running.key)
        self._held[running.request_id, running.attempt] = running
        self.orphans.enter((running.request_id, running.attempt), running.request.gateway)
        self._empty.clear()

    def exit(self, running: R) -> None:
        """The attempt holds nothing any more."""
        key = (running.request_id, running.attempt)
        self._held.pop(key, None)
        self.orphans.exit(key, running.request.gateway)
        if not running.passed_on:
            self.keeping.put(running.progress, time.monotonic())
        if not self._held:
            self._empty.set()

    def stop(self, request_id: str, attempt: int, error: BatonError) -> None:
        """End an attempt with this error; nothing happens when it is not in."""
        held = self._held.get((request_id, attempt))
        if held is not None:
            held.stop(error)

    def stop_all(self, error: BatonError) -> None:
        """End every attempt with this error."""
        for held in self:
            held.stop(error)

    def supersede(self, request: Request, attempts: tuple[int, ...]) -> None:
        """End older attempts of a request that came again."""
        for attempt in attempts:
            self.stop(request.request_id, attempt, Superseded(f"attempt {request.attempt} took its place"))

    async def drain(self, seconds: float) -> None:
        """Take nothing new, give those inside so many seconds, end the rest so that the gateway places them anew."""
        self._admission.drain()
        if not await happens(self._empty, seconds):
            await self.evict(Draining(f"{self.name} is leaving and did not finish in {seconds:g} s"))

    async def evict(self, error: BatonError) -> None:
        """Take nothing new, end every attempt with this error, and wait a moment until they hold nothing."""
        self._admission.drain()
        self.stop_all(error)
        if not await happens(self._empty, LEAVE_S):
            log.error("attempts did not free what they hold", extra={"attempts": len(self._held)})

    def hear_cancel(self, delivery: Delivery) -> None:
        """Stop what is held of the request in whatever phase; the admission remembers what has not come yet."""
        try:
            message: Cancel = decode(delivery.data, Cancel, "cancel")
        except MalformedMessage as error:
            self.malformed(delivery, error)
            return
        self.cancel(message, Cancelled("cancelled by the gateway"))

    def cancel(self, message: Cancel, error: BatonError) -> None:
        """End the attempts it names with this error."""
        for request_id, attempt in self._admission.cancel(message.request_id, message.attempt):
            self.stop(request_id, attempt, error)

    def reject(self, delivery: Delivery, request: Request, code: Code, message: str, *, retryable: bool) -> None:
        """Answer an offer with a refusal, counted."""
        self._metrics.rejected(code)
        self._work.refused += code is Code.OVERLOADED
        rejected = Rejected(request.request_id, request.attempt, self.name, code, message[:500], retryable)
        self.reply(delivery, rejected)

    def malformed(self, delivery: Delivery, error: MalformedMessage) -> None:
        """Answer bytes that are no message: counted, and never silence where somebody waits."""
        self._metrics.malformed()
        log.warning("a message was refused", extra={"subject": delivery.subject, "error": str(error)})
        self.reply(delivery, Rejected("", 0, self.name, error.code, str(error)[:500], retryable=False))

    def reply(self, delivery: Delivery, message: Value) -> None:
        """Answer, beside whatever else runs."""
        if not delivery.reply:
            return
        try:
            _ = self._tasks.spawn(self.respond(delivery, message), name="reply")
        except BatonError as error:
            log.warning("no room for a reply", extra={"subject": delivery.subject, "error": str(error)})

    async def respond(self, delivery: Delivery, message: Value) -> None:
        """Answer; an answer the bus does not take is lost, which the asker's deadline finds out."""
        try:
            await self._bus.respond(delivery, message)
        except BatonError as error:
            log.warning("a reply was lost", extra={"subject": delivery.subject, "error": str(error)})

    async def tell(self, request: Request, error: BatonError) -> None:
        """Send the gateway the attempt's bad ending; one that is lost is found by the gateway's progress deadline."""
        self._metrics.ended(error.code)
        ending: Failed = failed(request, error)
        try:
            await self._sender.end(request.gateway, ending)
        except BatonError as lost:
            log.warning("an ending was lost", extra={"request": request.request_id, "error": str(lost)})
