"""The gateway's metrics. docs/operations.md lists the names; a test holds the page to them.

Labels come from configuration, routes and codes alone, never from what a client sent, so that their number is bounded.
Nothing here is called per token. What the GenAI conventions name has their names, labels and bounds.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.gateway.access.caller import ANYONE
from services.gateway.answers.shapes import Usage
from shared.config import DEFAULT_TENANT

Observe = Callable[[float], None]

PROVIDER: Final = "baton"
_OWN: Final = frozenset((ANYONE, DEFAULT_TENANT))
OTHER: Final = "other"
"""The tenant of whoever is not in the configuration."""

# bounds of the GenAI conventions
_DURATION: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_USAGE: Final = tuple(4**power for power in range(14))
# our own
_QUEUE: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OVERHEAD: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_ATTEMPTS: Final = (1, 2, 3, 4, 6, 8, 16)
_LABELS: Final = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
)


@dataclass(frozen=True, slots=True)
class Meters:
    """The metrics of one operation on one scenario, with the labels looked up once. Times are in seconds."""

    first: Observe
    each: Observe
    input: Observe
    output: Observe
    queue: Observe
    overhead: Observe
    attempts: Observe
    duration: dict[str, Observe]  # by Baton's code of the error, empty where there is none
    spent: Callable[[str, Usage], None]  # by tenant


class _Durations(dict[str, Observe]):
    """Looks up a code's label when it is first met. There are as many as there are codes."""

    def __init__(self, of: Callable[[str], Histogram]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, code: str) -> Observe:
        self[code] = self._of(code).observe
        return self[code]


class Metrics:
    """All of them, in one instance's registry."""

    def __init__(self, registry: CollectorRegistry, configured: Callable[[], Container[str]] = tuple) -> None:
        self._configured = configured  # tenants, which a reload may change
        self._meters: dict[tuple[str, str], Meters] = {}
        self._spent: dict[tuple[str, str], list[Observe]] = {}
        self.requests = Counter("baton_gateway_requests", "answers sent", ["route", "status"], registry=registry)
        self.refusals = Counter("baton_gateway_refusals", "bad endings by code", ["code"], registry=registry)
        self.in_flight = Gauge("baton_gateway_in_flight", "client requests being answered", registry=registry)
        self.streams = Gauge("baton_gateway_streams", "choices not ended yet", registry=registry)
        self.waiting = Gauge("baton_gateway_waiting", "choices without a worker", ["scenario"], registry=registry)
        self.held = Gauge("baton_gateway_held", "what open requests keep in memory", ["kind"], registry=registry)
        self.attempts = Counter("baton_gateway_attempts", "offers made", ["scenario", "cause"], registry=registry)
        self.routes = Counter(
            "baton_gateway_routes", "offers by why to that worker", ["scenario", "route"], registry=registry
        )
        self.resumed = Counter(
            "baton_gateway_resumed", "streams taken over from another gateway or connection", ["scenario"],
            registry=registry,
        )  # fmt: skip
        self.withdrawn = Counter(
            "baton_gateway_withdrawn", "attempts cancelled", ["scenario", "cause"], registry=registry
        )
        self.connections = Gauge("baton_gateway_connections", "open HTTP connections", registry=registry)
        self.cut = Counter("baton_gateway_slow_readers", "clients cut off for not reading", registry=registry)
        self._tokens = Counter(
            "baton_gateway_usage_tokens",
            "tokens of ended requests",
            ["scenario", "tenant", "type"],
            registry=registry,
        )

        def histogram(name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=bounds, registry=registry)

        genai, ours = "gen_ai_server", "baton_gateway"
        self._duration = histogram(
            f"{genai}_request_duration_seconds", "arrival to ending", (*_LABELS, "error_type"), _DURATION
        )
        self._first = histogram(f"{genai}_time_to_first_token_seconds", "arrival to first token", _LABELS, _FIRST)
        self._each = histogram(
            f"{genai}_time_per_output_token_seconds", "mean of a request's tokens after the first", _LABELS, _EACH
        )
        self._usage = histogram(
            "gen_ai_client_token_usage", "tokens of a request", (*_LABELS, "gen_ai_token_type"), _USAGE
        )
        self._queue = histogram(f"{ours}_queue_seconds", "arrival to a worker's acceptance", ("scenario",), _QUEUE)
        self._overhead = histogram(
            f"{ours}_overhead_seconds", "time not spent waiting for workers", ("scenario",), _OVERHEAD
        )
        self._attempts_each = histogram(
            f"{ours}_attempts_per_request", "offers made for a choice", ("scenario",), _ATTEMPTS
        )

    def of(self, operation: str, scenario: str, model: str) -> Meters:
        """Look up the meters of one operation on one scenario, all three of our own naming."""
        known = self._meters.get((operation, scenario))
        if known is None:
            known = self._meters[operation, scenario] = self._made(operation, scenario, model)
        return known

    def _made(self, operation: str, scenario: str, model: str) -> Meters:
        labels = (operation, PROVIDER, scenario, model)
        return Meters(
            first=self._first.labels(*labels).observe,
            each=self._each.labels(*labels).observe,
            input=self._usage.labels(*labels, "input").observe,
            output=self._usage.labels(*labels, "output").observe,
            queue=self._queue.labels(scenario).observe,
            overhead=self._overhead.labels(scenario).observe,
            attempts=self._attempts_each.labels(scenario).observe,
            duration=_Durations(lambda code: self._duration.labels(*labels, code)),
            spent=partial(self._spend, scenario),
        )

    def _spend(self, scenario: str, tenant: str, usage: Usage) -> None:
        label = tenant if tenant in _OWN or tenant in self._configured() else OTHER
        counters = self._spent.get((scenario, label))
        if counters is None:
            counters = [self._tokens.labels(scenario, label, kind).inc for kind in ("input", "output", "cached")]
            self._spent[scenario, label] = counters
        tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        for count, number in zip(counters, tokens, strict=True):
            count(number)
