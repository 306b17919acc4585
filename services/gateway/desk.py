"""Takes client requests in, whichever way they came: keys, bounds, scenario, plan, call.

Owns the bound on requests in flight, checked before anything is parsed. Knows neither HTTP nor NATS.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from services.gateway.access.caller import Caller, Grant
from services.gateway.access.gate import Gate
from services.gateway.answers.calling import CallingAnswer
from services.gateway.answers.counted import CountedAnswer
from services.gateway.answers.forms import Asked
from services.gateway.answers.maps import NatsAnswer
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.responses import ResponsesRequest, in_its_words
from services.gateway.content.moderation import Moderation
from services.gateway.content.report import Who
from services.gateway.journal import Journal
from services.gateway.metrics import Metrics
from services.gateway.prompts.chats import calling_of
from services.gateway.prompts.plans import plan, sizes_of
from services.gateway.prompts.scenarios import Scenario, Scenarios
from services.gateway.reasons import GATEWAY_FULL
from services.gateway.relay.calls import Answer, Call, open_call
from services.gateway.relay.relay import Relay
from services.gateway.spans import open_span, operation_of
from shared.config import GatewaySettings
from shared.errors import BatonError, Cancelled, Draining, Forbidden, Overloaded
from shared.telemetry import speak_of, spoken_of


class Desk:
    """One per gateway."""

    def __init__(
        self,
        relay: Relay,
        scenarios: Scenarios,
        gate: Gate,
        moderation: Moderation,
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
        timeout_s: float | None = None,
    ) -> Call:
        """Plan a request, take its share of the limits, start it. `close` must follow.

        `timeout_s` is the client's beside the one in the request. Raises BadRequest, ContextTooLong, ContentRefused,
        LimitReached, Overloaded, ModerationDown.
        """
        if isinstance(asked, ResponsesRequest):
            with in_its_words():
                chat = asked.as_chat()
                return await self.open(
                    caller, chat, scenario, call_id=call_id, answer=answer, context=context, timeout_s=timeout_s
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
        try:
            who = Who(call_id, scenario.name, caller.tenant, caller.key_id)
            await self.moderation.check(asked, scenario.prompter, who)
            answer = _reading(answer, asked, scenario, prompt)
            guarded = self.moderation.guarded(answer, self._relay, who)
            call = open_call(
                call_id,
                scenario,
                grant,
                plans=plans,
                answer=guarded or answer,
                journal=journal,
                priority=caller.priority + max(0, asked.priority or 0),  # a client may only let others go first
                timeout_s=min((s for s in (asked.timeout, timeout_s) if s is not None), default=None),
            )
            if guarded is not None:
                guarded.watch(call)
            journal.started()
            self._relay.start(call)
        except BaseException as error:
            self._gate.settle(grant, 0, 0, error if isinstance(error, BatonError) else None)
            journal.refused(error)
            raise
        return call

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


def _reading(answer: Answer, asked: ChatRequest | CompletionRequest, scenario: Scenario, prompt_tokens: int) -> Answer:
    """Tell an answer what it counts from, and have calls read out of its text where functions may be called."""
    if isinstance(answer, CountedAnswer | NatsAnswer):
        answer.expect(prompt_tokens)
    if isinstance(asked, ChatRequest) and (calling := calling_of(asked, scenario.prompter.form)):
        return CallingAnswer(answer, calling, streamed=bool(asked.stream))
    return answer
