"""The intake of a decode worker: an offered KV buffer gets room, arrives, and joins the running batch.

Owns each attempt from the grant to the freeing of everything it held. Until the whole buffer is here the attempt is
prefill's, and nothing is said to the gateway about it; from then on it ends here, once. Tokens are `streams`' business.
"""

import logging
import time
from typing import Final

from services.decode.batch import Batch
from services.decode.checks import LinkChecks
from services.decode.incoming import Incoming, Member, Withdrawn
from shared.bus import Delivery, extract
from shared.engine import EngineInfo
from shared.errors import BatonError, Code, MalformedMessage
from shared.failpoints import failpoint
from shared.kv import Expected, KvReceiver
from shared.kv.growth import TAIL_BYTES, Tail
from shared.messages import Cancel, Done, KvGrant, KvReady, LinkCheck, ToDecode, decode
from shared.policy.admission import DecodeAdmission, Refused
from shared.telemetry import ATTEMPT, ERROR_TYPE, GEN_AI_INPUT_TOKENS, GEN_AI_OUTPUT_TOKENS, KV_BYTES, REQUEST_ID
from shared.worker.roster import Roster
from shared.worker.running import key_of, left_s
from shared.worker.standing import Standing

GROWTH_BLOCKS: Final = 1
"""Reserved beyond the tokens that come: a sequence that cannot grow at all is not worth its transfer."""
MOST_GROWING: Final = 8
"""Buffers that may come while they are computed: each has chosen its decode early, and keeps its room for long."""

log = logging.getLogger(__name__)


class Intake:
    """Hears offers, answers them, and carries each granted attempt to its end."""

    def __init__(
        self,
        standing: Standing,
        roster: Roster[Member],
        admission: DecodeAdmission,
        receiver: KvReceiver,
        batch: Batch,
    ) -> None:
        self._standing = standing
        self._engine = standing.engine
        self._metrics = standing.metrics
        self._roster = roster
        self._admission = admission
        self._receiver = receiver
        self._batch = batch
        self._checks = LinkChecks(standing, roster, receiver)

    def hear(self, delivery: Delivery) -> None:
        """Answer an offer at once, or a withdrawal of one. Waits for nothing."""
        try:
            message: KvReady | LinkCheck | Cancel = decode(delivery.data, ToDecode, "message to decode")
            if isinstance(message, Cancel):
                self._roster.cancel(message, Withdrawn("prefill takes it to another decode"))
                self._roster.reply(delivery, Done(self._roster.name))
                return
        except MalformedMessage as error:
            self._roster.malformed(delivery, error)
            return
        if isinstance(message, LinkCheck):
            self._checks.hear(delivery, message)
            return
        held = self._roster.get(message.request.request_id, message.request.attempt)
        if isinstance(held, Incoming):
            self._roster.reply(delivery, held.answer)
            return
        problem = self._problem(message) or self._admit(delivery, message)
        if problem is not None:
            self._roster.reject(delivery, message.request, problem.code, problem.message, retryable=problem.retryable)

    def _problem(self, offer: KvReady) -> Refused | None:
        """What is wrong with an offer, whatever room there is."""
        if why := self._standing.unready():
            return Refused(Code.DRAINING, f"{self._roster.name} takes nothing: {why}")
        if self._standing.peers.outdated(offer.prefill, offer.epoch):
            return Refused(Code.STALE, f"{offer.prefill} speaks with an epoch it has lost")
        if offer.fingerprint != self._engine.info.fingerprint:
            return Refused(Code.KV_REFUSED, "the KV buffer is of another model, layout or data type")
        if offer.growing and sum(held.growing for held in self._roster) >= MOST_GROWING:
            return Refused(Code.OVERLOADED, f"{MOST_GROWING} buffers come here already while they are computed")
        return unfit(offer, self._engine.info)

    def _admit(self, delivery: Delivery, offer: KvReady) -> Refused | None:
        info, request, now = self._engine.info, offer.request, time.monotonic()
        verdict = self._admission.offer(
            request.request_id,
            request.attempt,
            blocks=min(info.blocks_for(offer.kv_tokens + 1) + GROWTH_BLOCKS, info.blocks),
            kv_bytes=payload_bytes(offer),
            deadline=now + left_s(request.expires_ms),
            free_blocks=self._engine.load().free_blocks,
            now=now,
        )
        if isinstance(verdict, Refused):
            return verdict
        if verdict.repeated:  # those that are in were answered before it came to this
            return Refused(Code.STALE, "the attempt is leaving")
        self._roster.supersede(request, verdict.supersedes)
        return self._grant(delivery, offer)

    def _grant(self, delivery: Delivery, offer: KvReady) -> Refused | None:
        request = offer.request
        begins_ms = int(time.time() * 1000)
        if offer.growing:  # it may last as long as the first token does
            begins_ms = max(begins_ms, request.deadline_ms)
        deadline_ms = min(request.expires_ms, begins_ms + int(self._standing.fleet.push_timeout_s * 1000))
        expected: Expected | None = None
        try:
            key = key_of(request.request_id, request.attempt)
            expected = self._receiver.expect(key, payload_bytes(offer), deadline_ms)
            grant = KvGrant(
                request.request_id,
                request.attempt,
                self._roster.name,
                self._standing.epoch(),
                expected.ticket,
                self._receiver.endpoints,
                deadline_ms,
            )
            incoming = Incoming(offer, grant, expected, extract(delivery), self._batch.streams)
            self._roster.enter(incoming, lambda _: self._carry(incoming, delivery))
        except BatonError as error:
            if expected is not None:
                expected.cancel()
            self._batch.call(self._admission.ended(request.request_id, request.attempt, began=False))
            return Refused(error.code, str(error), retryable=error.retryable)
        return None

    async def _carry(self, incoming: Incoming, delivery: Delivery) -> None:
        try:
            await self._live(incoming, delivery)
        finally:
            self._roster.exit(incoming)  # last of all: a drain waits for the endings, too

    async def _live(self, incoming: Incoming, delivery: Delivery) -> None:
        """Answer the offer, do the work, free everything, and say how it ended where no frame did."""
        request = incoming.request
        attributes: dict[str, str | int] = {
            REQUEST_ID: request.request_id,
            ATTEMPT: request.attempt,
            KV_BYTES: incoming.offer.kv_bytes,
        }
        with self._standing.tracer.start_as_current_span(
            "decode", context=incoming.context, attributes=attributes
        ) as span:
            error: BatonError | None = None
            try:
                await self._roster.respond(delivery, incoming.answer)
                error = await incoming.work(lambda: self._decode(incoming))
                if incoming.stream is not None:
                    span.set_attribute(GEN_AI_INPUT_TOKENS, request.prompt_tokens)
                    span.set_attribute(GEN_AI_OUTPUT_TOKENS, incoming.stream.index)
                if error is not None:
                    span.set_attribute(ERROR_TYPE, error.code.value)
            finally:
                await self._batch.free(incoming)
            if error is not None and incoming.owes(error):
                await self._roster.tell(request, error)

    async def _decode(self, incoming: Incoming) -> None:
        """From the granted push to the last token."""
        offer = incoming.offer
        failpoint("decode.granted")
        incoming.staging = await incoming.expected.received()
        failpoint("decode.received")
        self._metrics.received(offer.kv_bytes)
        cached_tokens = offer.cached_tokens
        if offer.growing:
            tail = Tail.parse(incoming.staging.view[offer.kv_bytes :])
            incoming.sampled(tail.token_id)
            cached_tokens = tail.cached_tokens
        self._batch.call(self._admission.received(incoming.request_id, incoming.attempt))
        await incoming.turn.wait()
        incoming.check()
        await self._batch.decode(incoming, incoming.request, cached_tokens)


def payload_bytes(offer: KvReady) -> int:
    """Count the bytes that are pushed: a buffer that grows is followed by what was not known when it was offered."""
    return offer.kv_bytes + (TAIL_BYTES if offer.growing else 0)


def unfit(offer: KvReady, info: EngineInfo) -> Refused | None:
    """What is wrong with an offer by itself: no decode of this model would take it."""
    request = offer.request
    sampled = 0 if offer.growing else 1  # with the prompt, and part of the offer
    if len(request.tokens) % 4 or request.generated < sampled:
        return Refused(Code.MALFORMED, "an offer holds the prompt and at least one generated token", retryable=False)
    if offer.kv_tokens != request.n_tokens - sampled or offer.kv_bytes != info.kv_bytes(offer.kv_tokens):
        return Refused(Code.MALFORMED, "an offer's KV covers all its tokens but the last", retryable=False)
    if offer.kv_tokens + 1 >= info.context:
        return Refused(Code.CONTEXT_TOO_LONG, f"{offer.kv_tokens + 1} tokens leave no room", retryable=False)
    if left_s(request.expires_ms) <= 0:
        return Refused(Code.DEADLINE, "the request's time is up", retryable=False)
    return None
