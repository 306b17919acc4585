"""What happened to one call, and when: told once to its span and to the metrics.

Owns the span. Decides nothing; nothing here is called per token, and where the call is not sampled no text is made.
"""

import time
from typing import Any, Final

from opentelemetry.trace import Span, Status, StatusCode

from services.gateway.answers.shapes import Usage
from services.gateway.metrics import Meters
from shared import telemetry as names
from shared.errors import BatonError
from shared.messages import Finish

SHOWN_CHARS: Final = 200
"""Of an error's words, on the span."""


class Journal:
    """From a call's arrival to its end. Times are of the monotonic clock."""

    __slots__ = ("_answered", "_arrived", "_attempts", "_first", "_meters", "_queued", "_recording", "_started", "span")

    def __init__(self, span: Span, meters: Meters, arrived: float) -> None:
        self.span = span
        self._meters = meters
        self._recording = span.is_recording()
        self._arrived = arrived
        self._started = self._first = self._answered = 0.0
        self._queued = True
        self._attempts: dict[str, int] = {}  # by request id

    @property
    def arrived(self) -> float:
        """When the call came."""
        return self._arrived

    @property
    def first_token_s(self) -> float | None:
        """From the arrival to the first token; None when none came."""
        return self._first - self._arrived if self._first else None

    def started(self) -> None:
        """Note that all is done for which no worker is needed."""
        self._started = time.monotonic()

    def offered(self, request_id: str, attempt: int, instance: str, cause: str, route: str) -> None:
        """Note an offer of a choice to a worker, and why to this one."""
        self._attempts[request_id] = self._attempts.get(request_id, 0) + 1
        if self._recording:
            said = {names.ATTEMPT: attempt, names.INSTANCE: instance, names.CAUSE: cause, names.ROUTE: route}
            self._event("offered", said)

    def accepted(self, attempt: int, instance: str) -> None:
        """Note that a prefill has a choice; the call waits no more."""
        self._taken()
        if self._recording:
            self._event("accepted", {names.ATTEMPT: attempt, names.INSTANCE: instance})

    def first_token(self) -> None:
        """Note the first token of any choice."""
        if not self._first:
            self._first = time.monotonic()
            self._taken()  # the token may overtake the acceptance
            self._meters.first(self._first - self._arrived)
            if self._recording:
                self._event("first token", {})

    def handed_off(self, attempt: int, instance: str) -> None:
        """Note that a decode owns a choice."""
        if self._recording:
            self._event("handed off", {names.ATTEMPT: attempt, names.INSTANCE: instance})

    def withdrawn(self, attempt: int, cause: str) -> None:
        """Note that an attempt is over for us and another may begin."""
        if self._recording:
            self._event("withdrawn", {names.ATTEMPT: attempt, names.CAUSE: cause})

    def answered(self) -> None:
        """Note the last word of the workers."""
        self._answered = time.monotonic()

    def refused(self, error: BaseException) -> None:
        """End the journal of a call that never started."""
        self._close(time.monotonic(), error)

    def ended(self, usage: Usage, reasons: list[Finish], tenant: str, error: BatonError | None) -> None:
        """End the journal of a call, whatever became of it."""
        now, meters = time.monotonic(), self._meters
        meters.input(usage.prompt_tokens)
        meters.output(usage.completion_tokens)
        meters.spent(tenant, usage)
        if self._attempts:
            meters.attempts(max(self._attempts.values()))
        after = usage.completion_tokens / max(1, len(reasons)) - 1
        if error is None and self._first and after > 0:
            meters.each((self._answered - self._first) / after)
        if self._answered:
            meters.overhead(self._started - self._arrived + now - self._answered)
        if self._recording:
            self.span.set_attributes(
                {
                    names.GEN_AI_INPUT_TOKENS: usage.prompt_tokens,
                    names.GEN_AI_OUTPUT_TOKENS: usage.completion_tokens,
                    names.GEN_AI_CACHED_TOKENS: usage.cached_tokens,
                    names.GEN_AI_FINISH_REASONS: [str(reason) for reason in reasons],
                    names.TENANT: tenant,
                }
            )
        self._close(now, error)

    def _close(self, now: float, error: BaseException | None) -> None:
        code = str(error.code) if isinstance(error, BatonError) else "" if error is None else type(error).__name__
        self._meters.duration[code](now - self._arrived)
        if error is not None and self._recording:
            self.span.set_attribute(names.ERROR_TYPE, code)
            self.span.set_status(Status(StatusCode.ERROR, str(error)[:SHOWN_CHARS]))
        self.span.end()

    def _taken(self) -> None:
        if self._queued:
            self._queued = False
            self._meters.queue(time.monotonic() - self._arrived)

    def _event(self, name: str, attributes: dict[str, Any]) -> None:
        self.span.add_event(name, attributes)
