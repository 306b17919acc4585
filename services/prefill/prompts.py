"""A prompt's way through a prefill worker: computed, its first token sent, its KV handed to a decode worker.

Owns the order of these steps and the attempt's one ending: HandedOff, Finished or Failed. Who may come in is `slots`';
which decode gets the buffer is `handoff`'s.
"""

import logging
import time
from collections.abc import Callable

from msgspec import structs
from opentelemetry.trace import Span

from services.prefill.handoff import Handoff
from services.prefill.slots import Slot
from shared.bus import Delivery
from shared.engine import Prefilled
from shared.errors import BatonError, DeadlineExceeded
from shared.failpoints import failpoint
from shared.messages import KvReady, KvReadyEvent, Request, pack_tokens
from shared.telemetry import ATTEMPT, ERROR_TYPE, GEN_AI_INPUT_TOKENS, REQUEST_ID
from shared.worker.frames import Draft
from shared.worker.metrics import HANDED_OFF
from shared.worker.progress import Progress
from shared.worker.roster import Roster
from shared.worker.running import left_s
from shared.worker.standing import Standing
from shared.worker.tokens import finished, logprobs_of, sequence_of, show

log = logging.getLogger(__name__)


class Prompts:
    """Carries each accepted attempt to its end. `free` gives the slot back."""

    def __init__(
        self, standing: Standing, roster: Roster[Slot], handoff: Handoff, free: Callable[[Slot], None]
    ) -> None:
        self._standing = standing
        self._engine = standing.engine
        self._sender = standing.sender
        self._metrics = standing.metrics
        self._roster = roster
        self._handoff = handoff
        self._free = free

    async def carry(self, slot: Slot, delivery: Delivery) -> None:
        """Carry an attempt from its acceptance until it holds nothing and its ending is sent."""
        try:
            await self._carry(slot, delivery)
        finally:
            self._roster.exit(slot)  # last of all: a drain waits for the endings, too

    async def _carry(self, slot: Slot, delivery: Delivery) -> None:
        """Answer the offer, do the work, free everything, and say how it ended if the work did not."""
        request = slot.request
        attributes: dict[str, str | int] = {
            REQUEST_ID: request.request_id,
            ATTEMPT: request.attempt,
            GEN_AI_INPUT_TOKENS: request.prompt_tokens,
        }
        with self._standing.tracer.start_as_current_span(
            "prefill", context=slot.context, attributes=attributes
        ) as span:
            error: BatonError | None = None
            try:
                await self._roster.respond(delivery, slot.answer)
                error = await slot.work(lambda: self._run(slot, span))
                if error is not None:
                    span.set_attribute(ERROR_TYPE, error.code.value)
            finally:
                try:
                    await self._engine.release(slot.key)
                finally:
                    self._free(slot)
            if error is not None and not slot.ended:
                await self._roster.tell(request, error)

    async def _run(self, slot: Slot, span: Span) -> None:
        failpoint("prefill.accepted")
        self._in_time(slot.request)
        slot.computing = True
        started = time.monotonic()
        sequence = sequence_of(slot.request)
        prefilled = await self._engine.prefill(sequence, slot.staging.view)
        self._metrics.prefilled(time.monotonic() - started)
        failpoint("prefill.computed")
        slot.check()
        self._in_time(slot.request)
        span.add_event("first token")
        if await self._first_token(slot, sequence.tokens[slot.request.prompt_tokens :], prefilled):
            return
        failpoint("prefill.first_token")
        await self._engine.exported(slot.key)
        slot.computing = False
        slot.check()
        await self._hand_off(slot, prefilled)

    def _in_time(self, request: Request) -> None:
        """Early intervention: what comes too late is not computed, and what was computed too late is not sent."""
        if left_s(request.deadline_ms) <= 0:
            late = DeadlineExceeded("the first token is overdue")
            late.retryable = False
            raise late

    async def _first_token(self, slot: Slot, generated: list[int], prefilled: Prefilled) -> bool:
        """Send the token that prefill sampled. True when the request ends with it."""
        request, first, draft = slot.request, prefilled.first, Draft()
        shown = show(self._standing.open_text(request, generated), first, request.stopping)
        if first.alternatives is not None and request.sampling.logprobs is not None:
            draft.logprobs.append(logprobs_of(self._standing.pieces, 0, first.token_id, first.alternatives))
        draft.token(request, request.generated, first.token_id, shown.text)
        ending = None
        if shown.reason is not None:
            ending = finished(request, shown, request.generated + 1, prefilled.cached_tokens)
            draft.ended.append(ending)
        slot.progress = Progress(request, [first.token_id], [shown.text], draft.logprobs.copy(), ending)
        await self._sender.send(request.gateway, draft)
        if shown.reason is None:
            return False
        slot.ended = True
        self._metrics.ended(shown.reason)
        return True

    async def _hand_off(self, slot: Slot, prefilled: Prefilled) -> None:
        request, info = slot.request, self._engine.info
        kv_tokens, kv_bytes = request.n_tokens, len(slot.staging.view)
        ready = KvReady(
            request=structs.replace(request, tokens=request.tokens + pack_tokens([prefilled.first.token_id])),
            prefill=self._roster.name,
            epoch=self._standing.epoch(),
            fingerprint=info.fingerprint,
            kv_tokens=kv_tokens,
            kv_bytes=kv_bytes,
            host=self._standing.host,
            cached_tokens=prefilled.cached_tokens,
        )
        await self._mirror(ready)
        failpoint("prefill.kv_ready")
        grant = await self._handoff.send(ready, slot.staging)
        # the decode owns the attempt from here on, whether or not the gateway hears of it from us
        slot.ended = slot.passed_on = True
        self._free(slot)
        self._metrics.ended(HANDED_OFF)
        await self._sender.handed_off(request, grant.instance, grant.epoch)

    async def _mirror(self, ready: KvReady) -> None:
        """Tell whoever watches; nobody has to."""
        request, standing = ready.request, self._standing
        event = KvReadyEvent(
            request.request_id, request.attempt, ready.prefill, ready.fingerprint, ready.kv_tokens, ready.kv_bytes
        )
        try:
            await standing.bus.publish(standing.subjects.kv_ready(standing.scenario), event)
        except BatonError as error:
            log.debug("a KV-ready event was not sent", extra={"error": str(error)})
