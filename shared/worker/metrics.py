"""What a worker counts. Names are promised in docs/operations.md; leak checks read the gauges after load."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.errors import Code
from shared.messages import Finish

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
HANDED_OFF: Final = "handed_off"


class WorkerMetrics:
    """The metrics of one prefill or decode worker, in its own registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._rejections = Counter(
            "baton_worker_rejections", "Offers that were refused, by code", ["code"], registry=registry
        )
        self._endings = Counter(
            "baton_worker_attempt_endings", "How accepted attempts ended here", ["outcome"], registry=registry
        )
        self._malformed = Counter("baton_worker_malformed_messages", "Messages that were no message", registry=registry)
        self._steps = Counter("baton_worker_steps", "Engine steps that were published", registry=registry)
        self._tokens = Counter("baton_worker_tokens", "Tokens sampled", registry=registry)
        self._lost_frames = Counter("baton_worker_lost_frames", "Frames the bus did not take", registry=registry)
        self._push_failures = Counter(
            "baton_worker_kv_push_failures", "Pushes refused or lost", ["code"], registry=registry
        )
        self._kv_bytes = Counter("baton_worker_kv_bytes", "KV bytes handed over", ["transport"], registry=registry)
        self._kv_seconds = Histogram(
            "baton_worker_kv_push_seconds",
            "One KV push, ticket to word",
            ["transport"],
            buckets=SECONDS,
            registry=registry,
        )
        self._kv_early = Counter(
            "baton_worker_kv_early_bytes", "KV bytes that had left when their prompt was through", registry=registry
        )
        self._prefill_seconds = Histogram(
            "baton_worker_prefill_seconds", "Prompt to first token", buckets=SECONDS, registry=registry
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that is read when it is scraped."""
        Gauge(f"baton_worker_{name}", text, registry=self.registry).set_function(value)

    def rejected(self, code: Code) -> None:
        """Count an offer that was refused."""
        self._rejections.labels(code.value).inc()

    def ended(self, outcome: Finish | Code | str) -> None:
        """Count an ending: finished for a reason, failed with a code, or handed off."""
        self._endings.labels(str(outcome)).inc()

    def malformed(self) -> None:
        """Count bytes that were no message."""
        self._malformed.inc()

    def frame_lost(self) -> None:
        """Count a frame that was not published."""
        self._lost_frames.inc()

    def step(self, tokens: int) -> None:
        """Count an engine step and its tokens."""
        self._steps.inc()
        self._tokens.inc(tokens)

    def prefilled(self, seconds: float) -> None:
        """Record a prompt's way to its first token."""
        self._prefill_seconds.observe(seconds)
        self._tokens.inc()

    def pushed(self, transport: str, nbytes: int, seconds: float) -> None:
        """Record a KV buffer that has arrived."""
        self._kv_bytes.labels(transport).inc(nbytes)
        self._kv_seconds.labels(transport).observe(seconds)

    def pushed_early(self, nbytes: int) -> None:
        """Count bytes of a KV buffer that left while it was computed."""
        self._kv_early.inc(nbytes)

    def push_failed(self, code: Code) -> None:
        """Count a push that did not arrive."""
        self._push_failures.labels(code.value).inc()

    def received(self, nbytes: int) -> None:
        """Count a KV buffer that was taken in."""
        self._kv_bytes.labels("received").inc(nbytes)
