"""Takes client requests in, whichever way they came: keys, bounds, scenario, plan, call.

Owns the bound on requests in flight, checked before anything is parsed. Knows neither HTTP nor NATS.
"""

import hmac
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer

from services.gateway.calls import Answer, Call, open_call
from services.gateway.metrics import Metrics, operation_of, request_attributes
from services.gateway.openai import ChatRequest, CompletionRequest
from services.gateway.plans import plan_chat, plan_completion
from services.gateway.relay import Relay
from services.gateway.scenarios import Scenario, Scenarios
from services.gateway.shapes import ChatShape, CompletionShape, Shape
from shared.config import GatewaySettings
from shared.errors import BatonError, Cancelled, Draining, Overloaded

Asked = ChatRequest | CompletionRequest


class Desk:
    """One per gateway."""

    def __init__(
        self, relay: Relay, scenarios: Scenarios, settings: GatewaySettings, metrics: Metrics, tracer: Tracer
    ) -> None:
        self.scenarios = scenarios
        self.draining = False
        self.in_flight = 0
        self._relay = relay
        self._keys = [key.encode() for key in settings.api_keys]
        self._bound = settings.max_streams
        self._metrics = metrics
        self._tracer = tracer

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while a request is read and answered. Raises Draining, Overloaded."""
        if self.draining:
            raise Draining("this gateway is stopping; another one, or the same one restarted, will serve you")
        if self.in_flight >= self._bound:
            raise Overloaded(f"{self.in_flight} requests are being answered, as many as this gateway takes")
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

    def knows(self, key: str) -> bool:
        """Check a client's key in constant time; every key is good where none is configured."""
        given = key.encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(given, known) for known in self._keys]
        return any(matches) or not self._keys

    def name(self, asked: Asked) -> str:
        """Draw the id of a new call."""
        kind = "chatcmpl" if isinstance(asked, ChatRequest) else "cmpl"
        return f"{kind}-{secrets.token_hex(16)}"

    def shape(self, asked: Asked, call_id: str, scenario: Scenario) -> Shape:
        """Choose the form of the answer."""
        kind = ChatShape if isinstance(asked, ChatRequest) else CompletionShape
        include = bool(asked.stream_options and asked.stream_options.include_usage)
        return kind(call_id, int(time.time()), scenario.name, include)

    async def open(self, asked: Asked, scenario: Scenario, call_id: str, answer: Answer, context: Context) -> Call:
        """Plan a request and start it. Raises BadRequest, ContextTooLong, Overloaded. `close` must follow."""
        name = f"{operation_of(asked)} {scenario.name}"
        attributes = request_attributes(asked, call_id, scenario.name, scenario.model)
        span = self._tracer.start_span(name, context, kind=SpanKind.SERVER, attributes=attributes)
        try:
            if isinstance(asked, ChatRequest):
                plans = await plan_chat(asked, scenario.prompter)
            else:
                plans = await plan_completion(asked, scenario.prompter)
            call = open_call(call_id, scenario, plans, answer, span, priority=asked.priority or 0)
            self._relay.start(call)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.end()
            raise
        return call

    def close(self, call: Call) -> None:
        """End a call in whatever state, and account for it."""
        self._relay.close(call)
        error = call.ended.exception()
        self._relay.describe(call, error if isinstance(error, BatonError) else None)

    def cut(self, call: Call) -> None:
        """End the call of a client that does not read."""
        self._metrics.cut.inc()
        self._relay.close(call, Cancelled("the client does not read its stream"))
