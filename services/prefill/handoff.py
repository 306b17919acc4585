"""The hand-off: a complete KV buffer finds a decode worker and goes there in one push.

Owns the asking (best decode first, the next after a rejection, all again when one has room) and the rule that at most
one decode ever owns an attempt. Holds no slot and frees nothing; it tells the caller who has the buffer, or raises.
"""

import logging
import time
from typing import Final

from shared.errors import (
    BatonError,
    DeadlineExceeded,
    KvRefused,
    MalformedMessage,
    NoCapacity,
    Overloaded,
    TooLarge,
    WorkerLost,
)
from shared.kv import KvSender, Staging
from shared.messages import Cancel, Done, KvGrant, KvReady, Rejected
from shared.telemetry import KV_BYTES, KV_TRANSPORT
from shared.worker.running import left_s
from shared.worker.standing import Standing

AGAIN_S: Final = 0.25
"""When nobody has room, ask again after so long even without news: a status may be lost."""

log = logging.getLogger(__name__)


class Refused(BatonError):
    """Raised when a decode refuses an attempt that no other decode would take either."""

    def __init__(self, rejection: Rejected) -> None:
        super().__init__(rejection.message)
        self.code = rejection.code


class Handoff:
    """Offers buffers and pushes them. One call of `send` per attempt."""

    def __init__(self, standing: Standing, sender: KvSender) -> None:
        self._standing = standing
        self._sender = sender

    async def send(self, ready: KvReady, staging: Staging) -> KvGrant:
        """Bring the buffer to a decode; the answer is the grant of the one that has it now.

        Ends at the request's expiry, which the caller bounds. Raises Refused, KvRefused after so many refused pushes,
        WorkerLost when a decode may have the buffer but does not answer any more, NoCapacity or Overloaded.
        """
        refusals: dict[str, int] = {}
        problem: BatonError = NoCapacity("the group has no decode worker")
        while left_s(ready.request.expires_ms) > 0:
            for decode in sorted(
                self._standing.peers.decodes(self._standing.group()), key=lambda name: refusals.get(name, 0)
            ):
                grant = await self._offer(decode, ready)
                if isinstance(grant, BatonError):
                    problem = grant
                    continue
                if await self._push(decode, grant, staging):
                    return grant
                refusals[decode] = refusals.get(decode, 0) + 1
                if sum(refusals.values()) >= self._standing.fleet.attempts:
                    raise KvRefused("refused", f"{sum(refusals.values())} pushes were refused, the last by {decode}")
            await self._standing.peers.news(AGAIN_S)
        raise problem

    async def _offer(self, decode: str, ready: KvReady) -> KvGrant | BatonError:
        """Ask one decode. An error means: the next one."""
        subject = self._standing.subjects.decode(self._standing.scenario, decode)
        try:
            answer: KvGrant | Rejected = await self._standing.bus.request(
                subject,
                ready,
                KvGrant | Rejected,
                timeout_s=self._standing.fleet.offer_timeout_s,
                what="answer to a KV offer",
            )
        except TooLarge:
            raise
        except BatonError as error:  # after a silence it may have reserved room; unused, that lapses at its deadline
            return error
        if isinstance(answer, Rejected):
            self._standing.metrics.rejected(answer.code)
            if not answer.retryable:
                raise Refused(answer)
            return Overloaded(f"{decode} has no room: {answer.message}")
        request = ready.request
        if (answer.request_id, answer.attempt) != (request.request_id, request.attempt):
            return MalformedMessage("KV grant of this attempt", 0)
        if self._standing.peers.outdated(answer.instance, answer.epoch):
            return WorkerLost(f"{decode} answers with an epoch it has lost")
        return answer

    async def _push(self, decode: str, grant: KvGrant, staging: Staging) -> bool:
        """Push to one decode. False: it certainly does not have the buffer, so another may get it."""
        nbytes = len(staging.view)
        started = time.monotonic()
        with self._standing.tracer.start_as_current_span("kv push", attributes={KV_BYTES: nbytes}) as span:
            try:
                transport = await self._sender.push(staging, grant)
            except KvRefused as error:
                log.warning("a KV push was refused", extra={"decode": decode, "reason": error.reason})
                self._standing.metrics.rejected(error.code)
                return False
            except (WorkerLost, DeadlineExceeded) as error:
                log.warning("a KV push was lost", extra={"decode": decode, "error": str(error)})
                self._standing.metrics.rejected(error.code)
                await self._withdraw(decode, grant)
                return False
            span.set_attribute(KV_TRANSPORT, transport)
        self._standing.metrics.pushed(transport, nbytes, time.monotonic() - started)
        return True

    async def _withdraw(self, decode: str, grant: KvGrant) -> None:
        """After a push without an answer: make sure that this decode does not have the attempt.

        Its word, or the absence of its subscription, is enough. A decode that is silent may wake up and go on with
        the sequence, so nobody else may get it under the same attempt: the gateway must begin the next one.
        """
        cancel = Cancel(grant.request_id, grant.attempt)
        subject = self._standing.subjects.decode(self._standing.scenario, decode)
        try:
            await self._standing.bus.request(
                subject, cancel, Done, timeout_s=self._standing.fleet.offer_timeout_s, what="answer to a withdrawal"
            )
        except NoCapacity:
            return
        except BatonError as error:
            raise WorkerLost(f"{decode} took a KV buffer or not, and is silent") from error
