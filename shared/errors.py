"""Every error Baton raises or sends, one class per case that a caller treats differently.

BatonError
├── BadRequest          the caller must change the request
│   ├── ContextTooLong  prompt and max_tokens exceed what the model can hold
│   ├── UnknownScenario no scenario of that name
│   ├── TooLarge        a message or body above the limit
│   ├── UnknownStream   no stream of that id can be resumed
│   └── ContentRefused  moderation does not let this text in
├── Unauthorised        no key, or one that is not known here
├── Forbidden           a good key that may not do this
├── MalformedMessage    bytes that are no message of ours
├── Unavailable         try again later or elsewhere
│   ├── Overloaded      capacity exists but is taken
│   ├── NoCapacity      no healthy worker for a role
│   ├── Draining        this instance is leaving
│   ├── LimitReached    the tenant's own share is used up
│   ├── ModerationDown  a text cannot be judged now, and may not pass unjudged
│   │   └── NeverFits   the request is larger than the tenant's whole share
│   └── DeadlineExceeded
├── Cancelled           the client left or asked to stop
├── Resumed             another gateway goes on with the stream
├── KvRefused           a KV hand-off that must not be used: fingerprint, ticket, length, checksum
├── WorkerLost          the worker that held the request is gone or makes no progress
├── EngineFailed        the engine could not run the request
├── LeaseLost           another holder has our lease, or it could not be confirmed in time
├── LinkLost            the connection to NATS or Redis is gone for good
└── ConfigError         the configuration has mistakes; names all of them
"""

from enum import StrEnum


class Code(StrEnum):
    """What a failure is called on the wire, in metrics and in logs. Never renamed, never reused."""

    BAD_REQUEST = "bad_request"
    CONTEXT_TOO_LONG = "context_length_exceeded"
    UNKNOWN_SCENARIO = "model_not_found"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed_message"
    OVERLOADED = "server_overloaded"
    NO_CAPACITY = "no_capacity"
    DRAINING = "draining"
    DEADLINE = "deadline_exceeded"
    CANCELLED = "cancelled"
    KV_REFUSED = "kv_refused"
    WORKER_LOST = "worker_lost"
    ENGINE_FAILED = "engine_failed"
    LEASE_LOST = "lease_lost"
    LINK_LOST = "link_lost"
    CONFIG = "config_error"
    STALE = "stale_attempt"
    INTERNAL = "internal_error"
    UNAUTHORISED = "invalid_api_key"
    FORBIDDEN = "permission_error"
    RATE_LIMITED = "rate_limit_exceeded"
    CONTENT_REFUSED = "content_filter"
    MODERATION_DOWN = "moderation_unavailable"
    QUOTA = "insufficient_quota"
    UNKNOWN_STREAM = "stream_not_found"
    RESUMED = "resumed_elsewhere"


class BatonError(Exception):
    """Root of the tree. `retryable`: another attempt, unchanged, may succeed."""

    code: Code = Code.INTERNAL
    retryable: bool = False
    headers: dict[str, str] = {}  # that go out with an HTTP answer, such as how far the tenant's limits are


class BadRequest(BatonError):
    """Raised when the caller must change the request; `param` names the parameter at fault."""

    code = Code.BAD_REQUEST

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextTooLong(BadRequest):
    """Raised when prompt plus max_tokens exceed the model's context."""

    code = Code.CONTEXT_TOO_LONG


class UnknownScenario(BadRequest):
    """Raised when `model` (or the scenario header) names nothing that is served here."""

    code = Code.UNKNOWN_SCENARIO


class UnknownStream(BadRequest):
    """Raised when no stream of that id is there to be resumed, or it is not the caller's."""

    code = Code.UNKNOWN_STREAM


class TooLarge(BadRequest):
    """Raised when a message or body is above its limit; the text gives both sizes."""

    code = Code.TOO_LARGE


class ContentRefused(BadRequest):
    """Raised when moderation does not let a prompt in."""

    code = Code.CONTENT_REFUSED


class Unauthorised(BatonError):
    """Raised when the client's key is missing or not known here."""

    code = Code.UNAUTHORISED

    def __init__(self, message: str = "Incorrect or missing API key; send it as 'Authorization: Bearer KEY'") -> None:
        super().__init__(message)


class Forbidden(BatonError):
    """Raised when a good key may not do what was asked, such as use this scenario."""

    code = Code.FORBIDDEN


class MalformedMessage(BatonError):
    """Raised when bytes from outside are not the message that was expected."""

    code = Code.MALFORMED

    def __init__(self, expected: str, size: int, detail: str = "") -> None:
        why = detail and f": {detail}"
        super().__init__(f"malformed message: expected {expected}, got {size} bytes that are not it{why}")
        self.expected = expected
        self.size = size


class Unavailable(BatonError):
    """Raised when the same request may succeed later or elsewhere."""

    retryable = True
    code = Code.OVERLOADED

    def __init__(self, message: str, retry_after_s: float = 1.0, *, reason: str = "") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason  # what exactly stands in the way, where the code does not say it


class Overloaded(Unavailable):
    """Raised when capacity exists but is taken: slots, blocks, staging or a queue are full."""

    code = Code.OVERLOADED


class NoCapacity(Unavailable):
    """Raised when a role has no healthy worker."""

    code = Code.NO_CAPACITY


class Draining(Unavailable):
    """Raised when this instance is leaving and takes nothing new."""

    code = Code.DRAINING


class LimitReached(Unavailable):
    """Raised when a tenant's own limit is reached; `headers` are the rate-limit headers that say how far."""

    code = Code.RATE_LIMITED

    def __init__(self, message: str, retry_after_s: float, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.headers = headers or {}


class NeverFits(LimitReached):
    """Raised when a request needs more than the tenant's limit as a whole; waiting does not help."""

    code = Code.QUOTA
    retryable = False

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, 60.0, headers)


class ModerationDown(Unavailable):
    """Raised when a moderator gives no judgment, and the configuration lets nothing pass without one."""

    code = Code.MODERATION_DOWN


class DeadlineExceeded(Unavailable):
    """Raised when a wait reached its deadline."""

    code = Code.DEADLINE


class Cancelled(BatonError):
    """Raised when the client left or asked to stop."""

    code = Code.CANCELLED


class Resumed(BatonError):
    """Raised in a stream that was resumed at another gateway: its client is there now."""

    code = Code.RESUMED


class KvRefused(BatonError):
    """Raised when a KV hand-off must not be used; `reason` is fingerprint, ticket, length, checksum or deadline."""

    code = Code.KV_REFUSED
    retryable = True

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WorkerLost(BatonError):
    """Raised when the worker that held a request is gone or makes no progress."""

    code = Code.WORKER_LOST
    retryable = True


class EngineFailed(BatonError):
    """Raised when the engine could not run a request; `fatal` when the engine itself is dead."""

    code = Code.ENGINE_FAILED
    retryable = True

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


class LeaseLost(BatonError):
    """Raised when another holder has our lease, or it could not be confirmed within its time to live."""

    code = Code.LEASE_LOST


class LinkLost(BatonError):
    """Raised when the connection to NATS or Redis is closed for good."""

    code = Code.LINK_LOST
    retryable = True


class ConfigError(BatonError):
    """Raised when the configuration is wrong; `faults` holds every mistake found, one sentence each."""

    code = Code.CONFIG

    def __init__(self, faults: list[str]) -> None:
        super().__init__("configuration has mistakes:\n" + "\n".join(f"  - {fault}" for fault in faults))
        self.faults = faults
