"""Takes client requests in, whichever way they came: keys, bounds, scenario, plan, call.

Owns the bound on requests in flight, checked before anything is parsed. Knows neither HTTP nor NATS.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from services.gateway.access.caller import Caller, Grant
from services.gateway.access.gate import Gate
from services.gateway.answers.forms import Asked, choices_of
from services.gateway.answers.positions import Position
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.responses import ResponsesRequest, in_its_words
from services.gateway.content.moderation import Moderation
from services.gateway.content.report import Who
from services.gateway.journal import Journal
from services.gateway.metrics import Metrics
from services.gateway.opening import Opening, make_call
from services.gateway.prompts.labels import choose, counts
from services.gateway.prompts.plans import plan, sizes_of
from services.gateway.prompts.scenarios import Scenario, Scenarios
from services.gateway.reasons import GATEWAY_FULL
from services.gateway.relay.calls import Answer, Call
from services.gateway.relay.relay import Relay
from services.gateway.resume.claims import Claimant
from services.gateway.resume.memo import write_memo
from services.gateway.resume.reopening import Found, find, prepare, show_again
from services.gateway.spans import open_span, operation_of
from shared.config import GatewaySettings
from shared.errors import BatonError, Cancelled, Draining, Forbidden, Overloaded, UnknownStream
from shared.telemetry import speak_of, spoken_of


class Desk:
    """One per gateway."""

    def __init__(
        self,
        relay: Relay,
        scenarios: Scenarios,
        gate: Gate,
        moderation: Moderation,
        claimant: Claimant,
        *,
        settings: GatewaySettings,
        metrics: Metrics,
        tracer: Tracer,
    ) -> None:
        self.scenarios = scenarios
        self.draining = False
        self.in_flight = 0
        self._relay = relay
        self._gate = gate
        self.moderation = moderation
        self._claimant = claimant
        self._bound = settings.max_streams
        self._metrics = metrics
        self._tracer = tracer
        self._server = (settings.host, settings.port)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while a request is read and answered. Raises Draining, Overloaded."""
        if self.draining:
            raise Draining("this gateway is stopping; another one, or the same one restarted, will serve you")
        if self.in_flight >= self._bound:
            text = f"{self.in_flight} requests are being answered, as many as this gateway takes"
            raise Overloaded(text, reason=GATEWAY_FULL)
        self.in_flight += 1
        try:
            yield
        except BatonError as error:
            self.refused(error)
            raise
        finally:
            self.in_flight -= 1

    def refused(self, error: BatonError) -> None:
        """Count a bad ending."""
        self._metrics.refusals.labels(str(error.code)).inc()

    async def identify(self, credential: str) -> Caller:
        """Say who a client is; the credential is empty where it sent none. Raises Unauthorised."""
        return await self._gate.identify(credential)

    def find(self, caller: Caller, model: str | None, header: str | None = None) -> Scenario:
        """Find the scenario that a caller means. Raises UnknownScenario, Forbidden."""
        scenario = self.scenarios.find(model, header)
        if not caller.may_use(scenario.name):
            self._gate.forbidden(caller, scenario.name)
            raise Forbidden(f"this key may not use '{scenario.name}'")
        return scenario

    async def choose(self, caller: Caller, asked: Asked, header: str | None) -> Scenario:
        """Find the scenario that a request is for; of several that share its name by what it is like.

        Raises UnknownScenario, Forbidden, BadRequest, LimitReached.
        """
        sharing = [] if header else self.scenarios.sharing(asked.model)
        if not sharing:
            return self.find(caller, asked.model, header)
        if counts(sharing):
            self._gate.check(caller, "")  # before any work is done
        chosen = await choose(sharing, asked, caller.tenant)
        return self.find(caller, chosen.name)

    def counted(self, caller: Caller, scenario: str = "") -> AbstractAsyncContextManager[Grant]:
        """Count what is answered here, without any worker, as one request of its tenant. Raises LimitReached."""
        return self._gate.counted(caller, scenario)

    async def open(
        self,
        caller: Caller,
        asked: Asked,
        scenario: Scenario,
        *,
        call_id: str,
        answer: Answer,
        context: Context,
        created: int = 0,
        timeout_s: float | None = None,
        memo: bytes | None = None,
    ) -> Call:
        """Plan a request, take its share of the limits, start it. `close` must follow.

        `created`: what a streamed answer says of when it was. `timeout_s` is the client's beside the one in the
        request. `memo`: made here where there is none. Raises BadRequest, ContextTooLong, ContentRefused,
        LimitReached, Overloaded, ModerationDown.
        """
        if memo is None:
            memo = write_memo(asked, created, choices_of(asked), guarded=scenario.guarded)
        if isinstance(asked, ResponsesRequest):
            with in_its_words():
                return await self.open(
                    caller,
                    asked.as_chat(),
                    scenario,
                    call_id=call_id,
                    answer=answer,
                    context=context,
                    timeout_s=timeout_s,
                    memo=memo,
                )
        journal = self._journal(asked, scenario, call_id, context)
        try:
            self._gate.check(caller, scenario.name)
            plans = await plan(asked, scenario.prompter)
            prompt, new = sizes_of(plans)
            grant = await self._gate.admit(
                caller, scenario.name, prompt, new, choices=len(plans), bounded=asked.bound is not None
            )
        except BaseException as error:
            journal.refused(error)
            raise
        with self._begun(grant, journal):
            who = Who(call_id, scenario.name, caller.tenant, caller.key_id)
            await self.moderation.check(asked, scenario.prompter, who)
            timeout_s = min((s for s in (asked.timeout, timeout_s) if s is not None), default=None)
            opening = Opening(asked, scenario, grant, journal, who, plans, answer, timeout_s, memo)
            call = make_call(opening, self.moderation, self._relay)
            self._relay.start(call)
        return call

    async def find_stream(self, caller: Caller, call_id: str) -> Found:
        """Take over a stream of a caller's from whoever has it; asking in vain counts as a request, too.

        Raises UnknownStream, DeadlineExceeded, LimitReached, LinkLost.
        """
        self._gate.check(caller, "")
        try:
            return await find(caller, call_id, self.scenarios, self._claimant)
        except UnknownStream:
            async with self.counted(caller):
                raise

    async def reopen(
        self, caller: Caller, found: Found, *, answer: Answer, seen: list[Position], context: Context
    ) -> Call:
        """Make a call of a stream that was claimed, with a share of the limits. `close` must follow.

        Nothing of it is shown before `go_on`. Raises LimitReached, Overloaded.
        """
        scenario, asked = found.scenario, found.asked
        chat = asked.as_chat() if isinstance(asked, ResponsesRequest) else asked
        journal = self._journal(chat, scenario, found.call_id, context)
        try:
            plans = found.plans
            grant = await self._gate.admit(caller, scenario.name, 0, 0, choices=len(plans))
        except BaseException as error:
            journal.refused(error)
            raise
        with self._begun(grant, journal):
            who = Who(found.call_id, scenario.name, caller.tenant, caller.key_id)
            opening = Opening(chat, scenario, grant, journal, who, plans, answer, found.left_s, found.packed, seen)
            call = make_call(opening, self.moderation, self._relay)
            for record, claimed in zip(call.records, found.streams, strict=True):
                prepare(record, claimed)
            self._relay.enter(call)
            call.admit()
            self._metrics.resumed.labels(scenario.name).inc()
        return call

    async def go_on(self, call: Call, found: Found, seen: list[Position], has_room: Callable[[], bool]) -> None:
        """Show what there is of a reopened call and its client has not seen; let workers bring the rest."""
        await show_again(call, found, seen, self._relay, has_room)
        self._relay.place(call)

    @contextmanager
    def _begun(self, grant: Grant, journal: Journal) -> Iterator[None]:
        """Give a share back where no call comes of it."""
        try:
            yield
        except BaseException as error:
            self._gate.settle(grant, 0, 0, error if isinstance(error, BatonError) else None)
            journal.refused(error)
            raise

    def _journal(
        self, asked: ChatRequest | CompletionRequest, scenario: Scenario, call_id: str, context: Context
    ) -> Journal:
        span = open_span(self._tracer, context, asked, scenario, call_id=call_id, server=self._server)
        speak_of(spoken_of() or call_id, span)
        return Journal(span, self._metrics.of(operation_of(asked), scenario.name, scenario.model), time.monotonic())

    def close(self, call: Call) -> None:
        """End a call in whatever state, and account for it."""
        self._relay.close(call)
        failure = call.failure
        self._gate.settle(call.grant, *call.spent(), failure)
        call.journal.ended(call.usage, call.reasons, call.grant.caller.tenant, failure)

    def stop(self, call: Call, error: BatonError) -> None:
        """End a call early; its owner hears the error."""
        self._relay.close(call, error)

    def cut(self, call: Call) -> None:
        """End the call of a client that does not read."""
        self._metrics.cut.inc()
        self._relay.close(call, Cancelled("the client does not read its stream as fast as it is written"))
