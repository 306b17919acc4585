"""How an error looks to a client: HTTP status, OpenAI error object, headers; or a map over NATS.

Owns the table from codes to statuses. 429 says capacity exists but is taken, 503 says there is none.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from shared.errors import BadRequest, BatonError, Code, Unavailable

MAX_RETRY_AFTER_S: Final = 59
"""Clients disregard a Retry-After of a minute and more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and words for one code. `again`: the client may repeat the same request."""

    status: int
    type: str
    code: str | None
    again: bool = False


_INVALID: Final = "invalid_request_error"
_ANSWERS: Final[dict[Code, Answer]] = {
    Code.BAD_REQUEST: Answer(400, _INVALID, None),
    Code.MALFORMED: Answer(400, _INVALID, None),
    Code.CONTEXT_TOO_LONG: Answer(400, _INVALID, "context_length_exceeded"),
    Code.UNKNOWN_SCENARIO: Answer(404, _INVALID, "model_not_found"),
    Code.UNKNOWN_STREAM: Answer(404, _INVALID, "stream_not_found"),
    Code.RESUMED: Answer(499, _INVALID, "resumed_elsewhere"),
    Code.TOO_LARGE: Answer(413, _INVALID, "request_too_large"),
    Code.CONTENT_REFUSED: Answer(400, _INVALID, "content_filter"),
    Code.UNAUTHORISED: Answer(401, _INVALID, "invalid_api_key"),
    Code.FORBIDDEN: Answer(403, "permission_error", "permission_error"),
    Code.RATE_LIMITED: Answer(429, "rate_limit_exceeded", "rate_limit_exceeded", again=True),
    Code.QUOTA: Answer(429, "insufficient_quota", "insufficient_quota"),
    Code.OVERLOADED: Answer(429, "server_overloaded", "server_overloaded", again=True),
    Code.NO_CAPACITY: Answer(503, "server_error", "no_capacity", again=True),
    Code.MODERATION_DOWN: Answer(503, "server_error", "moderation_unavailable", again=True),
    Code.DRAINING: Answer(503, "server_error", "draining", again=True),
    Code.LINK_LOST: Answer(503, "server_error", "link_lost", again=True),
    Code.CANCELLED: Answer(499, _INVALID, "cancelled"),
    Code.DEADLINE: Answer(504, "timeout", "timeout"),
    Code.KV_REFUSED: Answer(502, "server_error", "kv_refused"),
    Code.WORKER_LOST: Answer(502, "server_error", "worker_lost"),
    Code.ENGINE_FAILED: Answer(502, "server_error", "engine_failed"),
}
_SERVER_FAULT: Final = 500
_TOO_MANY: Final = 429
_OTHER: Final = Answer(500, "server_error", "internal_error")


class Refused(BatonError):
    """Raised where a request ends badly, with the code that a worker or the dispatcher gave."""

    def __init__(self, code: Code, message: str, retry_after_s: float | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retryable = answer(self).again
        self.retry_after_s = 1.0 if retry_after_s is None else retry_after_s


def answer(error: BatonError) -> Answer:
    """Look up what the client sees of an error."""
    return _ANSWERS.get(error.code, _OTHER)


def error_object(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """OpenAI's error body, before it is JSON."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def as_json(error: BatonError) -> bytes:
    """Make the error body of an HTTP answer or of an event in a stream."""
    seen = answer(error)
    param = error.param if isinstance(error, BadRequest) else None
    return msgspec.json.encode(error_object(told(error), seen.type, param, seen.code))


def as_map(error: BatonError) -> dict[str, Any]:
    """Make the map that a NATS client gets."""
    seen = answer(error)
    body: dict[str, Any] = {"code": seen.code or str(error.code), "message": told(error), "retryable": seen.again}
    if seen.again:
        body |= {"retry_after_s": _wait_s(error), "reason": reason(error)}
    if isinstance(error, BadRequest) and error.param is not None:
        body["param"] = error.param
    return {"error": body}


def headers(error: BatonError) -> dict[str, str]:
    """Headers that say whether and when to come back."""
    seen = answer(error)
    made = dict(error.headers)
    if error.code is Code.UNAUTHORISED:
        made["www-authenticate"] = "Bearer"
    if seen.status == _TOO_MANY or seen.again:
        made |= {"retry-after": str(_wait_s(error)), "x-baton-reason": reason(error)}
    if not seen.again and (seen.status >= _SERVER_FAULT or seen.status == _TOO_MANY):
        made["x-should-retry"] = "false"
    return made


def reason(error: BatonError) -> str:
    """Say what exactly stood in the way."""
    return (error.reason if isinstance(error, Unavailable | Refused) else "") or str(error.code)


def _wait_s(error: BatonError) -> int:
    seconds = error.retry_after_s if isinstance(error, Unavailable | Refused) else 1.0
    return min(MAX_RETRY_AFTER_S, max(1, math.ceil(seconds)))


def told(error: BatonError) -> str:
    """Say it to a client: never empty, and of an unforeseen error nothing of its insides."""
    if answer(error) is _OTHER:
        return "the server failed to answer this request; its log has the reason under this request id"
    words = str(error) or str(error.code)
    return words.encode("utf-8", "replace").decode()  # it may quote a header's bytes, which need not be text
