"""Whole prompts at a decode worker: computed in its own engine, beside what decodes there, with no transfer.

Owns each such attempt from the answer to its one ending. It is the exception: the gateway offers a prompt here only
when it is short, or its beginning is cached here, and no prefill has a slot; and we take few at a time, since every
token that is decoded meanwhile waits for them.
"""

import time

from msgspec import structs
from opentelemetry.context import Context

from services.decode.batch import Batch
from services.decode.incoming import Member
from services.decode.streams import Streams
from shared.bus import Delivery, extract
from shared.errors import BatonError, Code, MalformedMessage
from shared.kv import Staging
from shared.messages import Accepted, PrefillRequest, Request, ToPrefill, decode, pack_tokens, unpack_tokens
from shared.policy.admission import DecodeAdmission, Refused
from shared.telemetry import ATTEMPT, ERROR_TYPE, GEN_AI_INPUT_TOKENS, GEN_AI_OUTPUT_TOKENS, LOCAL, REQUEST_ID
from shared.worker.prompting import Prompting, unfit
from shared.worker.roster import Roster
from shared.worker.running import left_s
from shared.worker.standing import Standing


class Local(Member):
    """An accepted attempt. Its staging is reserved from the start."""

    def __init__(
        self, request: Request, answer: Accepted, staging: Staging, context: Context, streams: Streams
    ) -> None:
        super().__init__(request, answer, context, streams)
        self.staging: Staging = staging
        self.computing = False
        self.ended = False  # with its first token

    @property
    def over(self) -> bool:
        """Whether the gateway has heard how it ended."""
        return self.ended or (self.stream is not None and self.stream.ended)


class LocalPrompts:
    """Hears offers of whole prompts, answers them, and carries each accepted one to its end.

    `below`: how long a prompt may not be, in tokens that the engine has not cached; 0: none is taken.
    """

    def __init__(
        self,
        standing: Standing,
        roster: Roster[Member],
        admission: DecodeAdmission,
        batch: Batch,
        *,
        below: int,
    ) -> None:
        self._standing = standing
        self._engine = standing.engine
        self._roster = roster
        self._admission = admission
        self._batch = batch
        self._below = below
        self._prompting = Prompting(standing)

    @property
    def computing(self) -> bool:
        """Whether the engine has a prompt to compute."""
        return any(isinstance(held, Local) and held.computing for held in self._roster)

    def hear(self, delivery: Delivery) -> None:
        """Answer an offer at once. Waits for nothing."""
        try:
            message: PrefillRequest = decode(delivery.data, ToPrefill, "prefill request")
        except MalformedMessage as error:
            self._roster.malformed(delivery, error)
            return
        request = message.request
        held = self._roster.get(request.request_id, request.attempt)
        if isinstance(held, Local):
            self._roster.reply(delivery, held.answer)
            return
        refused = self._problem(request) or self._admit(delivery, request)
        if refused is not None:
            self._roster.reject(delivery, request, refused.code, refused.message, retryable=refused.retryable)

    def _problem(self, request: Request) -> Refused | None:
        """What is wrong with a request, whatever room there is."""
        if why := self._standing.unready():
            return Refused(Code.DRAINING, f"{self._roster.name} takes nothing: {why}")
        if problem := unfit(request, self._engine.info):
            return problem
        if not self._below:
            return Refused(Code.NO_CAPACITY, f"{self._roster.name} computes no prompts")
        if request.n_tokens < self._below:
            return None
        left = request.n_tokens - self._engine.cached(unpack_tokens(request.tokens))
        if left < self._below:
            return None
        return Refused(Code.NO_CAPACITY, f"{self._roster.name} computes fewer than {self._below} tokens, not {left}")

    def _admit(self, delivery: Delivery, request: Request) -> Refused | None:
        info, now = self._engine.info, time.monotonic()
        kv_bytes = info.kv_bytes(request.n_tokens)
        verdict = self._admission.offer(
            request.request_id,
            request.attempt,
            blocks=info.blocks_for(request.n_tokens + 1) + 1,  # the first token, and what an insert asks for at least
            kv_bytes=kv_bytes,
            deadline=now + left_s(request.deadline_ms),
            free_blocks=self._engine.load().free_blocks,
            now=now,
            local=True,
        )
        if isinstance(verdict, Refused):
            wants_room = verdict.code in (Code.OVERLOADED, Code.CONTEXT_TOO_LONG)  # a prefill may have it all the same
            return Refused(Code.NO_CAPACITY, verdict.message) if wants_room else verdict
        if verdict.repeated:  # those that are in were answered before it came to this
            return Refused(Code.STALE, "the attempt is leaving")
        self._roster.supersede(request, verdict.supersedes)
        return self._enter(delivery, request, kv_bytes)

    def _enter(self, delivery: Delivery, request: Request, kv_bytes: int) -> Refused | None:
        accepted = Accepted(request.request_id, request.attempt, self._roster.name, self._standing.epoch())
        staging: Staging | None = None
        try:
            staging = self._standing.arena.reserve(kv_bytes)
            local = Local(request, accepted, staging, extract(delivery), self._batch.streams)
            self._roster.enter(local, lambda _: self._carry(local, delivery))
        except BatonError as error:
            if staging is not None:
                staging.release()
            self._batch.call(self._admission.ended(request.request_id, request.attempt, began=False))
            return Refused(Code.NO_CAPACITY, str(error))
        return None

    async def _carry(self, local: Local, delivery: Delivery) -> None:
        try:
            await self._live(local, delivery)
        finally:
            self._roster.exit(local)  # last of all: a drain waits for the endings, too

    async def _live(self, local: Local, delivery: Delivery) -> None:
        """Answer the offer, do the work, free everything, and say how it ended where no frame did."""
        request = local.request
        attributes: dict[str, str | int | bool] = {
            REQUEST_ID: request.request_id,
            ATTEMPT: request.attempt,
            LOCAL: True,
        }
        with self._standing.tracer.start_as_current_span(
            "decode", context=local.context, attributes=attributes
        ) as span:
            error: BatonError | None = None
            try:
                await self._roster.respond(delivery, local.answer)
                error = await local.work(lambda: self._run(local))
                span.set_attribute(GEN_AI_INPUT_TOKENS, request.prompt_tokens)
                if local.stream is not None:
                    span.set_attribute(GEN_AI_OUTPUT_TOKENS, local.stream.index)
                if error is not None:
                    span.set_attribute(ERROR_TYPE, error.code.value)
            finally:
                local.computing = False
                await self._batch.free(local)
            if error is not None and not local.over:
                await self._roster.tell(request, error)

    async def _run(self, local: Local) -> None:
        """From the accepted prompt to the last token."""
        request = local.request
        local.computing = True
        with self._standing.tracer.start_as_current_span("prefill", attributes={LOCAL: True}) as span:
            sequence, prefilled = await self._prompting.compute(local, local.staging.view)
            span.add_event("first token")
            if await self._prompting.first_token(local, sequence, prefilled):
                local.ended = True
                return
            await self._engine.exported(local.key)
        await self._engine.release(local.key)  # done with as a prompt; it comes back as a sequence to decode
        local.computing = False
        local.check()
        # the gateway hears what it would hear of a prefill and a decode: from here on, silence means another thing
        await self._standing.sender.handed_off(request, self._roster.name, self._standing.epoch())
        tokens = request.tokens + pack_tokens([prefilled.first.token_id])
        await self._batch.decode(local, structs.replace(request, tokens=tokens), prefilled.cached_tokens)
