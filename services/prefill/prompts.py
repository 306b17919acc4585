"""A prompt's way through a prefill worker: computed, its first token sent, its KV handed to a decode worker.

Owns the order of these steps and the attempt's one ending: HandedOff, Finished or Failed. Who may come in is `slots`';
which decode gets the buffer is `handoff`'s.
"""

import logging
import time
from collections.abc import Callable

from msgspec import structs
from opentelemetry.trace import Span

from services.prefill.ahead import Ahead
from services.prefill.handoff import Handoff
from services.prefill.slots import Slot
from shared.bus import Delivery
from shared.engine import Prefilled
from shared.errors import BatonError
from shared.failpoints import failpoint
from shared.messages import KvReady, KvReadyEvent, pack_tokens
from shared.telemetry import ATTEMPT, ERROR_TYPE, GEN_AI_INPUT_TOKENS, REQUEST_ID
from shared.worker.metrics import HANDED_OFF
from shared.worker.prompting import Prompting
from shared.worker.roster import Roster
from shared.worker.standing import Standing

log = logging.getLogger(__name__)


class Prompts:
    """Carries each accepted attempt to its end. `free` gives the slot back.

    Prompts of `overlap_from` tokens and more (0: none) leave while they are computed.
    """

    def __init__(
        self,
        standing: Standing,
        roster: Roster[Slot],
        handoff: Handoff,
        free: Callable[[Slot], None],
        *,
        overlap_from: int = 0,
    ) -> None:
        self._standing = standing
        self._engine = standing.engine
        self._sender = standing.sender
        self._metrics = standing.metrics
        self._roster = roster
        self._handoff = handoff
        self._free = free
        self._overlap_from = overlap_from
        self._prompting = Prompting(standing)

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
        slot.stint.begin(time.monotonic())
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
                    slot.stint.end(time.monotonic(), passed=slot.ended)
            if error is not None and not slot.ended:
                await self._roster.tell(request, error)

    async def _run(self, slot: Slot, span: Span) -> None:
        ahead = self._ahead(slot)
        try:
            await self._compute(slot, span, ahead)
        finally:
            if ahead is not None:
                await ahead.stop()

    def _ahead(self, slot: Slot) -> Ahead | None:
        """Begin the hand-off of a long prompt now, where there is room for it."""
        if not self._overlap_from or slot.request.n_tokens < self._overlap_from or not self._handoff.may_grow:
            return None
        ahead = Ahead(self._handoff, self._engine.info, self._ready(slot, None), slot)
        try:
            ahead.begin(self._standing)
        except BatonError as error:
            log.warning("no room for a task", extra={"request": slot.request_id, "error": str(error)})
            return None
        return ahead

    async def _compute(self, slot: Slot, span: Span, ahead: Ahead | None) -> None:
        slot.computing = True
        growth = ahead.grow if ahead is not None else None
        sequence, prefilled = await self._prompting.compute(slot, slot.staging.view, growth)
        self._standing.work.cached += prefilled.cached_tokens
        self._standing.work.tokens += slot.request.n_tokens - prefilled.cached_tokens
        span.add_event("first token")
        if await self._prompting.first_token(slot, sequence, prefilled):
            slot.ended = True
            return
        await self._engine.exported(slot.key)
        slot.computing = False
        slot.stint.computed(time.monotonic())
        slot.check()
        await self._hand_off(slot, prefilled, ahead)

    def _ready(self, slot: Slot, prefilled: Prefilled | None) -> KvReady:
        """What a decode is offered: a buffer that is complete, or (None) one that is about to be computed."""
        request, sampled = slot.request, [] if prefilled is None else [prefilled.first.token_id]
        return KvReady(
            request=structs.replace(request, tokens=request.tokens + pack_tokens(sampled)),
            prefill=self._roster.name,
            epoch=self._standing.epoch(),
            fingerprint=self._engine.info.fingerprint,
            kv_tokens=request.n_tokens,
            kv_bytes=len(slot.staging.view),
            host=self._standing.host,
            cached_tokens=0 if prefilled is None else prefilled.cached_tokens,
            growing=prefilled is None,
        )

    async def _hand_off(self, slot: Slot, prefilled: Prefilled, ahead: Ahead | None) -> None:
        request, ready = slot.request, self._ready(slot, prefilled)
        await self._mirror(ready)
        failpoint("prefill.kv_ready")
        grant = None if ahead is None else await ahead.finish(prefilled)
        if grant is None:
            grant = await self._handoff.send(ready, slot.staging, () if ahead is None else ahead.asked)
        # the decode owns the attempt from here on, whether or not the gateway hears of it from us
        slot.ended = slot.passed_on = True
        self._free(slot)
        slot.stint.end(time.monotonic(), passed=True)
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
