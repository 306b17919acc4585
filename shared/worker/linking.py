"""Verifies that a prefill can push to the decodes of its group, and tells the monitor (P/D-Serve, set-up, step 3).

Owns the checks and the telling; who is to be checked, and when, is `links`'. A check is a real push: one block of a
pattern, by the transport, the ticket and the checksum that requests use. It holds staging, and nothing else, for as
long as that takes.
"""

import asyncio
import logging
import time
from typing import Final

from shared.errors import BatonError, MalformedMessage, WorkerLost
from shared.failpoints import spared
from shared.kv import KvSender
from shared.messages import KvGrant, LinkCheck, Links, Rejected, ScenarioMap, Status
from shared.tasks import Tasks, happens
from shared.worker.links import Check
from shared.worker.standing import Standing

TELL_S: Final = 1.0
"""Between two tellings without a change."""
GATHER_S: Final = 0.05
"""Between two with one: what changes together is told together."""

MOST_LINKS: Final = 4096
"""That one message may tell."""

log = logging.getLogger(__name__)


class Refused(BatonError):
    """Raised when a decode refuses a check."""

    def __init__(self, rejection: Rejected) -> None:
        super().__init__(rejection.message)
        self.code = rejection.code
        self.retryable = rejection.retryable


def check_id(prefill: str, number: int) -> str:
    """Name a check as if it were a request: both ends tie its ticket to this, as attempt 0."""
    return f"link-check.{prefill}.{number}"


class Linking:
    """One per prefill. `run` is a task of its owner."""

    def __init__(self, standing: Standing, sender: KvSender) -> None:
        self._standing = standing
        self._sender = sender
        self._book = standing.links
        self._wake = asyncio.Event()
        self._told_at = 0.0
        self._over = False
        standing.peers.listeners.append(self._hear)
        self._learn_members()

    async def run(self, ready: asyncio.Event) -> None:
        """Verify and tell, for ever, from the moment that this instance is ready."""
        await ready.wait()
        checks = Tasks(f"{self._standing.name} links")
        try:
            while not self._over:
                now, may_check = time.monotonic(), not self._standing.unready()
                for check in self._book.due(now) if may_check else []:
                    _ = checks.spawn(self._perform(check), name=f"link check {check.decode}")
                if now >= self._tell_at():
                    await self._tell(now)
                due = self._book.next() if may_check else None
                wake_at = self._tell_at() if due is None else min(self._tell_at(), due)
                await happens(self._wake, max(wake_at - time.monotonic(), GATHER_S / 10))
                self._wake.clear()
        finally:
            await checks.close()

    def stop(self) -> None:
        """Begin nothing any more: what checks stand on is about to close."""
        self._over = True
        self._wake.set()

    def _tell_at(self) -> float:
        return self._told_at + (GATHER_S if self._book.changed else TELL_S)

    async def _tell(self, now: float) -> None:
        self._book.changed, self._told_at = False, now
        standing = self._standing
        links = Links(standing.name, standing.epoch(), self._book.links()[:MOST_LINKS])
        try:
            await standing.bus.publish(standing.subjects.links(standing.scenario, standing.name), links, traced=False)
        except BatonError as error:  # the next telling is soon
            log.debug("links not told", extra={"error": str(error)})

    def _hear(self, message: ScenarioMap | Status) -> None:
        if isinstance(message, ScenarioMap):
            self._learn_members()
        else:
            self._book.hear(message, time.monotonic())
        due = self._book.next()
        if self._book.changed or (due is not None and due <= time.monotonic()):
            self._wake.set()

    def _learn_members(self) -> None:
        self._book.members(self._standing.peers.members(self._standing.name), time.monotonic())

    async def _perform(self, check: Check) -> None:
        """Perform one check to its end."""
        fleet = self._standing.fleet
        try:
            async with asyncio.timeout(fleet.offer_timeout_s + fleet.push_timeout_s):
                epoch = await self._verify(check)
        except TimeoutError:
            self._failed(check, "the check did not end in time")
        except Refused as refusal:
            self._failed(check, str(refusal), refused=refusal.retryable)
        except BatonError as error:
            self._failed(check, str(error))
        except Exception as error:  # the end of a task: the way counts as bad until a check says otherwise
            log.exception("a link check failed", extra={"decode": check.decode})
            self._failed(check, f"internal error: {type(error).__name__}")
        else:
            log.info("link verified", extra={"decode": check.decode})
            self._book.passed(check, epoch)
        finally:
            self._wake.set()

    def _failed(self, check: Check, problem: str, *, refused: bool = False) -> None:
        log.log(
            logging.INFO if refused else logging.WARNING,
            "link not verified",
            extra={"decode": check.decode, "problem": problem},
        )
        self._book.failed(check, problem, time.monotonic(), refused=refused)

    async def _verify(self, check: Check) -> tuple[int, int]:
        """Ask for a push and make it; the decode's epoch. Raises BatonError."""
        standing = self._standing
        staging = standing.arena.reserve(standing.engine.info.kv_bytes(1))
        try:
            fill(staging.view, check.number)
            grant = await self._ask(check, len(staging.view))
            with spared():
                await self._sender.push(staging, grant)
            return grant.epoch
        finally:
            staging.release()

    async def _ask(self, check: Check, nbytes: int) -> KvGrant:
        standing = self._standing
        ask = LinkCheck(
            prefill=standing.name,
            epoch=standing.epoch(),
            number=check.number,
            fingerprint=standing.engine.info.fingerprint,
            kv_bytes=nbytes,
            host=standing.host,
        )
        answer: KvGrant | Rejected = await standing.bus.request(
            standing.subjects.decode(standing.scenario, check.decode),
            ask,
            KvGrant | Rejected,
            timeout_s=standing.fleet.offer_timeout_s,
            what="answer to a link check",
        )
        if isinstance(answer, Rejected):
            raise Refused(answer)
        if (answer.request_id, answer.attempt) != (check_id(standing.name, check.number), 0):
            raise MalformedMessage("KV grant of this link check", 0)
        if answer.epoch < check.epoch or standing.peers.outdated(answer.instance, answer.epoch):
            raise WorkerLost(f"{check.decode} answers with an epoch it has lost")
        return answer


def fill(view: memoryview, number: int) -> None:
    """Fill a buffer with a pattern that is another one for each check, so that no old bytes pass for new ones."""
    word = (number * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
    view[:] = (word * (len(view) // 8 + 1))[: len(view)]
