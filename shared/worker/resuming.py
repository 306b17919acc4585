"""Streams that go on at another gateway: claims are answered, and what nobody claims in time is given up.

Owns the ear for claims and for the gateways' signs of life. What is kept, and who is an orphan, is decided elsewhere.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Final, Generic

from shared.bus import Bus, Delivery
from shared.errors import BatonError, Cancelled, MalformedMessage, Resumed, TooLarge
from shared.messages import Claim, Claims, Request, Role, Status, decode
from shared.policy.orphans import Orphans
from shared.subjects import Subjects
from shared.tasks import Tasks
from shared.worker.keeping import Keeping
from shared.worker.metrics import WorkerMetrics
from shared.worker.progress import Progress
from shared.worker.roster import R, Roster

SWEEP_S: Final = 0.5

log = logging.getLogger(__name__)


class Resuming(Generic[R]):
    """One per worker. `watch` is a task of its owner."""

    def __init__(self, roster: Roster[R], *, bus: Bus, tasks: Tasks, metrics: WorkerMetrics) -> None:
        self._roster = roster
        self._bus = bus
        self._tasks = tasks
        self._metrics = metrics
        metrics.gauge("streams_kept", "Streams that are over and may be resumed", lambda: len(self._keeping))
        metrics.gauge("streams_kept_bytes", "Memory that those take", lambda: self._keeping.held_bytes)
        metrics.gauge("orphans", "Attempts whose gateway is gone", lambda: len(self._orphans))

    @property
    def _keeping(self) -> Keeping:
        return self._roster.keeping

    @property
    def _orphans(self) -> Orphans:
        return self._roster.orphans

    async def listen(self, subjects: Subjects, scenario: str, stack: AsyncExitStack) -> None:
        """Hear claims and gateways until the stack closes."""
        for subject, handler in ((subjects.claim(scenario), self.hear), (subjects.fleet_status(), self._hear_gateway)):
            subscription = await self._bus.subscribe(subject, handler)
            stack.push_async_callback(subscription.stop)

    def hear(self, delivery: Delivery) -> None:
        """Stop what is claimed and tell how far it came."""
        try:
            claim: Claim = decode(delivery.data, Claim, "claim")
        except MalformedMessage as error:
            self._roster.malformed(delivery, error)
            return
        found = list(self._claimed(claim))
        try:
            _ = self._tasks.spawn(self._tell(delivery, found), name="claim")
        except BatonError as error:
            log.warning("no room for the answer to a claim", extra={"gateway": claim.gateway, "error": str(error)})

    def _claimed(self, claim: Claim) -> Iterator[Progress]:
        """Whatever is here of the requests, running or kept."""
        now, wanted = time.monotonic(), set(claim.request_ids)
        for request_id in wanted:
            kept = self._keeping.get(request_id, now)
            if kept is not None and _may(claim, kept.request):
                yield kept
        for held in self._roster:
            if held.request_id in wanted and not held.passed_on and _may(claim, held.request):
                if not claim.look:
                    held.stop(Resumed(f"the stream goes on at {claim.gateway}"))
                yield held.progress

    async def _tell(self, delivery: Delivery, found: list[Progress]) -> None:
        try:
            for progress in found:
                await self._tell_one(delivery, progress)
            await self._bus.respond(delivery, Claims(self._roster.name, len(found)))
        except BatonError as error:
            log.warning("the answer to a claim was lost", extra={"error": str(error)})

    async def _tell_one(self, delivery: Delivery, progress: Progress) -> None:
        """Tell as much as one message holds; what is left out will be computed again."""
        most = len(progress.ids)
        while True:
            try:
                await self._bus.respond(delivery, progress.claimed(self._roster.name, most))
            except TooLarge:
                if not most:
                    raise
                most //= 2
            else:
                return

    def _hear_gateway(self, delivery: Delivery) -> None:
        try:
            status: Status = decode(delivery.data, Status, "status")
        except MalformedMessage as error:
            self._roster.malformed(delivery, error)
            return
        if status.role is Role.GATEWAY:
            self._orphans.hear(status)

    async def watch(self) -> None:
        """Give up, for ever, what has been nobody's for too long."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            # a worker that was stopped or cut off for a while must not take its own silence for the gateways'
            elapsed_s, last = min(now - last, 2 * SWEEP_S), now
            self._keeping.tidy(now)
            if self._bus.connected:
                for request_id, attempt in self._orphans.sweep(elapsed_s):
                    self._roster.stop(request_id, attempt, Cancelled("its gateway is gone, and no other resumed it"))


def _may(claim: Claim, request: Request) -> bool:
    """Whether a stream may be told to whoever asks."""
    if claim.look:
        return request.gateway == claim.gateway
    return bool(request.memo) and request.tenant == claim.tenant
