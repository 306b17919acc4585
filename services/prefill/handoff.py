"""The hand-off: a complete KV buffer finds a decode worker and goes there in one push.

Owns the rule that at most one decode ever owns an attempt. Who is asked, and in which order, is `Asking`'s decision.
Holds no slot and frees nothing; it tells the caller who has the buffer, or raises.
"""

import logging
import time
from collections.abc import Sequence

from shared.errors import (
    BatonError,
    Code,
    DeadlineExceeded,
    KvRefused,
    MalformedMessage,
    NoCapacity,
    Overloaded,
    TooLarge,
    WorkerLost,
)
from shared.failpoints import failpoint
from shared.kv import KvSender, Staging
from shared.kv.growth import Growing
from shared.messages import Cancel, Done, KvGrant, KvReady, Rejected
from shared.policy.asking import AGAIN_S
from shared.tasks import happens
from shared.telemetry import KV_BYTES, KV_GROWING, KV_TRANSPORT
from shared.worker.running import left_s
from shared.worker.standing import Standing

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

    @property
    def may_grow(self) -> bool:
        """Whether one more buffer may be pushed while it grows."""
        return self._sender.may_grow

    async def ahead(self, ready: KvReady, growing: Growing, pushed: list[str]) -> KvGrant | None:
        """Ask each decode once, and push to the first that has room while the buffer grows.

        None: no decode has the buffer. `pushed` gets the name of the one it went to. Raises as `send` does.
        """
        peers = self._standing.peers
        asking = peers.asking(self._standing.name)
        while (decode := asking.next(time.monotonic())) is not None:
            answer = await self._offer(decode, ready)
            if isinstance(answer, BatonError):
                continue
            pushed.append(decode)
            try:
                return answer if await self._push(decode, answer, growing) else None
            finally:
                peers.view.settled(decode)
        return None

    async def send(self, ready: KvReady, staging: Staging, last: Sequence[str] = ()) -> KvGrant:
        """Bring the buffer to a decode; the answer is the grant of the one that has it now.

        `last`: decodes to be asked after the others.
        Ends at the request's expiry, which the caller bounds. Raises Refused, KvRefused after so many refused pushes,
        WorkerLost when a decode may have the buffer but does not answer any more, NoCapacity or Overloaded.
        """
        peers, asking, refusals = self._standing.peers, self._standing.peers.asking(self._standing.name, last), 0
        problem: BatonError = NoCapacity("the group has no decode worker")
        while left_s(ready.request.expires_ms) > 0:
            news = peers.news  # taken before the asking, so that none is missed meanwhile
            while (decode := asking.next(time.monotonic())) is not None:
                answer = await self._offer(decode, ready)
                if isinstance(answer, BatonError):
                    problem = answer
                    continue
                try:
                    if await self._push(decode, answer, staging):
                        return answer
                finally:
                    peers.view.settled(decode)
                asking.refused(decode)
                refusals += 1
                if refusals >= self._standing.fleet.attempts:
                    raise KvRefused("refused", f"{refusals} pushes failed, the last one to {decode}")
            await happens(news, AGAIN_S)
            asking.again()
        raise problem

    async def _offer(self, decode: str, ready: KvReady) -> KvGrant | BatonError:
        """Ask one decode, and keep its count. An error means: the next one."""
        view = self._standing.peers.view
        view.dispatched(decode)
        try:
            answer = await self._ask(decode, ready)
        except DeadlineExceeded as error:  # it may have reserved room; unused, that lapses at its deadline
            view.unanswered(decode, time.monotonic())
            return error
        except TooLarge:
            view.withdrawn(decode)
            raise
        except BatonError as error:
            view.unanswered(decode, time.monotonic())
            return error
        except BaseException:
            view.withdrawn(decode)
            raise
        if isinstance(answer, KvGrant):
            view.accepted(decode)
            return answer
        view.rejected(decode)
        self._standing.metrics.rejected(answer.code)
        if not answer.retryable:
            raise Refused(answer)
        if answer.code is Code.STALE:  # cancelled, or replaced by a newer attempt: nobody waits for this one
            raise WorkerLost(f"{decode} counts the attempt as over: {answer.message}")
        return Overloaded(f"{decode} has no room: {answer.message}")

    async def _ask(self, decode: str, ready: KvReady) -> KvGrant | Rejected:
        """Ask one decode. A grant that is not of this attempt, or not of the decode that lives now, is none."""
        standing, request = self._standing, ready.request
        answer: KvGrant | Rejected = await standing.bus.request(
            standing.subjects.decode(standing.scenario, decode),
            ready,
            KvGrant | Rejected,
            timeout_s=standing.fleet.offer_timeout_s,
            what="answer to a KV offer",
        )
        if isinstance(answer, KvGrant):
            if (answer.request_id, answer.attempt) != (request.request_id, request.attempt):
                raise MalformedMessage("KV grant of this attempt", 0)
            if standing.peers.outdated(answer.instance, answer.epoch):
                raise WorkerLost(f"{decode} answers with an epoch it has lost")
        return answer

    async def _push(self, decode: str, grant: KvGrant, payload: Staging | Growing) -> bool:
        """Push to one decode. False: it certainly does not have the buffer, so another may get it."""
        nbytes, metrics, links = len(payload.view), self._standing.metrics, self._standing.links
        failpoint("prefill.granted")
        attributes: dict[str, int | bool] = {KV_BYTES: nbytes, KV_GROWING: isinstance(payload, Growing)}
        with self._standing.tracer.start_as_current_span("kv push", attributes=attributes) as span:
            try:
                transport, seconds = await self._move(payload, grant)
            except KvRefused as error:
                log.warning("a KV push was refused", extra={"decode": decode, "reason": error.reason})
                metrics.push_failed(error.code)
                links.doubt(decode, time.monotonic())
                return False
            except (WorkerLost, DeadlineExceeded) as error:
                if isinstance(payload, Growing) and payload.stopped:
                    await self._let_go(decode, grant)
                    return False
                log.warning("a KV push was lost", extra={"decode": decode, "error": str(error)})
                metrics.push_failed(error.code)
                links.doubt(decode, time.monotonic())
                if isinstance(payload, Growing) and payload.completed_at is None:
                    await self._let_go(decode, grant)  # it can have no more than a part
                else:
                    await self._withdraw(decode, grant)
                return False
            span.set_attribute(KV_TRANSPORT, transport)
        failpoint("prefill.pushed")
        metrics.pushed(transport, nbytes, seconds)
        links.pushed(decode, grant.epoch, nbytes, seconds)
        return True

    async def _move(self, payload: Staging | Growing, grant: KvGrant) -> tuple[str, float]:
        """Push; the transport, and for how long the attempt waited for it. Raises as KvSender does."""
        started = time.monotonic()
        if not isinstance(payload, Growing):
            transport = await self._sender.push(payload, grant)
            return transport, time.monotonic() - started
        transport = await self._sender.push_growing(payload, grant)
        self._standing.metrics.pushed_early(payload.early)
        return transport, time.monotonic() - (payload.completed_at or started)  # what came before cost nobody time

    async def _let_go(self, decode: str, grant: KvGrant) -> None:
        """Tell a decode that it need not keep room for what will not come; unheard, the room lapses."""
        try:
            await self._withdraw(decode, grant)
        except WorkerLost as error:
            log.info("a decode did not hear that nothing comes", extra={"decode": decode, "error": str(error)})

    async def _withdraw(self, decode: str, grant: KvGrant) -> None:
        """After a push without an answer: make sure that this decode does not have the attempt.

        Its word, or the absence of its subscription, is enough. A decode that is silent may wake up and go on with
        the sequence, so nobody else may get it under the same attempt: the gateway must begin the next one.
        """
        standing = self._standing
        try:
            await standing.bus.request(
                standing.subjects.decode(standing.scenario, decode),
                Cancel(grant.request_id, grant.attempt),
                Done,
                timeout_s=standing.fleet.offer_timeout_s,
                what="answer to a withdrawal",
            )
        except NoCapacity:
            return
        except BatonError as error:
            raise WorkerLost(f"{decode} took a KV buffer or not, and is silent") from error
