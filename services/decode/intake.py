"""The intake of a decode worker: an offered KV buffer gets room, arrives, and joins the running batch.

Owns each attempt from the grant to the freeing of everything it held. Until the whole buffer is here the attempt is
prefill's, and nothing is said to the gateway about it; from then on it ends here, once. Tokens are `streams`' business.
"""

import logging
import time
from typing import Final

from services.decode.incoming import Incoming, Withdrawn
from services.decode.streams import Stream, Streams
from shared.bus import Delivery, extract
from shared.engine import EngineInfo
from shared.errors import BatonError, Code, MalformedMessage
from shared.failpoints import failpoint
from shared.kv import Expected, KvReceiver
from shared.messages import Cancel, Done, KvGrant, KvReady, ToDecode, decode
from shared.policy.admission import DecodeAdmission, Refused
from shared.policy.known import Key
from shared.telemetry import ATTEMPT, ERROR_TYPE, GEN_AI_INPUT_TOKENS, GEN_AI_OUTPUT_TOKENS, KV_BYTES, REQUEST_ID
from shared.worker.roster import Roster
from shared.worker.running import key_of, left_s
from shared.worker.standing import Standing
from shared.worker.tokens import sequence_of

GROWTH_BLOCKS: Final = 1
"""Reserved beyond the tokens that come: a sequence that cannot grow at all is not worth its transfer."""

log = logging.getLogger(__name__)


class Intake:
    """Hears offers, answers them, and carries each granted attempt to its end."""

    def __init__(
        self,
        standing: Standing,
        roster: Roster[Incoming],
        admission: DecodeAdmission,
        receiver: KvReceiver,
        streams: Streams,
    ) -> None:
        self._standing = standing
        self._engine = standing.engine
        self._metrics = standing.metrics
        self._roster = roster
        self._admission = admission
        self._receiver = receiver
        self._streams = streams

    def hear(self, delivery: Delivery) -> None:
        """Answer an offer at once, or a withdrawal of one. Waits for nothing."""
        try:
            message: KvReady | Cancel = decode(delivery.data, ToDecode, "message to decode")
            if isinstance(message, Cancel):
                self._roster.cancel(message, Withdrawn("prefill takes it to another decode"))
                self._roster.reply(delivery, Done(self._roster.name))
                return
        except MalformedMessage as error:
            self._roster.malformed(delivery, error)
            return
        held = self._roster.get(message.request.request_id, message.request.attempt)
        if held is not None:
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
        return unfit(offer, self._engine.info)

    def _admit(self, delivery: Delivery, offer: KvReady) -> Refused | None:
        info, request, now = self._engine.info, offer.request, time.monotonic()
        verdict = self._admission.offer(
            request.request_id,
            request.attempt,
            blocks=min(info.blocks_for(request.n_tokens) + GROWTH_BLOCKS, info.blocks),
            kv_bytes=offer.kv_bytes,
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
        deadline_ms = min(request.expires_ms, int((time.time() + self._standing.fleet.push_timeout_s) * 1000))
        expected: Expected | None = None
        try:
            key = key_of(request.request_id, request.attempt)
            expected = self._receiver.expect(key, offer.kv_bytes, deadline_ms)
            grant = KvGrant(
                request.request_id,
                request.attempt,
                self._roster.name,
                self._standing.epoch(),
                expected.ticket,
                self._receiver.endpoints,
                deadline_ms,
            )
            incoming = Incoming(offer, grant, expected, extract(delivery), self._streams)
            self._roster.enter(incoming, lambda entered: self._carry(entered, delivery))
        except BatonError as error:
            if expected is not None:
                expected.cancel()
            self._admit_next(self._admission.ended(request.request_id, request.attempt))
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
                await self._free(incoming)
            if error is not None and incoming.owes(error):
                await self._roster.tell(request, error)

    async def _decode(self, incoming: Incoming) -> None:
        """From the granted push to the last token."""
        request, offer = incoming.request, incoming.offer
        failpoint("decode.granted")
        incoming.staging = await incoming.expected.received()
        failpoint("decode.received")
        self._metrics.received(offer.kv_bytes)
        self._admit_next(self._admission.received(request.request_id, request.attempt))
        await incoming.turn.wait()
        incoming.check()
        sequence = sequence_of(request)
        text = self._standing.open_text(request, sequence.tokens[request.prompt_tokens :])
        incoming.stream = stream = Stream(sequence.key, request, text, offer.cached_tokens, incoming.progress)
        self._streams.join(stream)
        await self._engine.insert(sequence, offer.kv_tokens, incoming.staging.view)
        failpoint("decode.inserted")
        incoming.staging.release()
        self._admission.inserted(request.request_id, request.attempt)
        incoming.check()
        error = await stream.over
        if error is not None:
            raise error

    async def _free(self, incoming: Incoming) -> None:
        """Free everything the attempt holds, whatever it holds."""
        stream = incoming.stream
        if stream is not None:
            self._streams.leave(stream)
        try:
            await self._engine.release(incoming.key)
        finally:
            incoming.expected.cancel()
            if incoming.staging is not None:
                incoming.staging.release()
            self._admit_next(self._admission.ended(incoming.request_id, incoming.attempt))

    def _admit_next(self, keys: list[Key]) -> None:
        """Give these attempts their turn to enter the batch."""
        for request_id, attempt in keys:
            held = self._roster.get(request_id, attempt)
            if held is not None:
                held.turn.set()


def unfit(offer: KvReady, info: EngineInfo) -> Refused | None:
    """What is wrong with an offer by itself: no decode of this model would take it."""
    request = offer.request
    if len(request.tokens) % 4 or request.generated < 1:
        return Refused(Code.MALFORMED, "an offer holds the prompt and at least one generated token", retryable=False)
    if offer.kv_tokens != request.n_tokens - 1 or offer.kv_bytes != info.kv_bytes(offer.kv_tokens):
        return Refused(Code.MALFORMED, "an offer's KV covers all its tokens but the last", retryable=False)
    if request.n_tokens >= info.context:
        return Refused(Code.CONTEXT_TOO_LONG, f"{request.n_tokens} tokens leave no room", retryable=False)
    if left_s(request.expires_ms) <= 0:
        return Refused(Code.DEADLINE, "the request's time is up", retryable=False)
    return None
