"""The bus: what services say to each other over. `NatsBus` is the real one; tests hold another in `tests/fakes.py`.

A lossy pipe by design: at most once, in order per publisher. Owns the connection, its limits and the replies that are
awaited; decides nothing, repeats nothing. Publishing is not delivery: it returns when the bytes are in a buffer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import UnionType
from typing import Final, Protocol, TypeVar

from opentelemetry.context import Context

from shared.errors import TooLarge
from shared.messages import Value, encode
from shared.telemetry import extract_context

T = TypeVar("T")
Handler = Callable[["Delivery"], None]
"""Decodes, admits, spawns, returns. Called one at a time per subscription, so it must never wait."""

INBOX: Final = "_INBOX"
"""How every inbox begins. Other reply subjects are not used: whoever sent them could name a control subject."""
NO_RESPONDERS: Final = "503"
"""NATS' status, in the header `Status`, where nobody is subscribed."""
RESERVED_BYTES: Final = 8192
"""Kept free below the server's limit, which counts headers too and closes the connection when it is exceeded."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivery:
    """One message as it came. Bytes and headers are untrusted; `reply` is an inbox or empty."""

    subject: str
    data: bytes
    reply: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class BusStats:
    """Counters since start; telemetry reads them at each scrape."""

    published: int = 0
    delivered: int = 0
    refused: int = 0  # publishes that were too large or found the buffer full or the link down
    handler_errors: int = 0
    refused_replies: int = 0  # reply subjects that are no inbox
    errors: int = 0  # that the client library reported
    reconnects: int = 0


class Subscription(Protocol):
    """Interest in a subject."""

    async def stop(self, timeout_s: float = 1.0) -> None:
        """Take nothing new, hand over what has come, then end. Replies still go out. Idempotent."""
        ...


class Bus(Protocol):
    """What a service may do with the bus."""

    stats: BusStats

    @property
    def connected(self) -> bool:
        """Whether a publish would be taken now."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the connection is gone for good."""
        ...

    async def publish(self, subject: str, message: Value | bytes, *, reply: str = "", traced: bool = True) -> None:
        """Hand the message to the connection; never waits. `traced` adds the current trace context.

        Raises TooLarge, Overloaded (too much unsent) or LinkLost (not connected now).
        """
        ...

    async def request(
        self, subject: str, message: Value | bytes, expected: type[T] | UnionType, *, timeout_s: float, what: str = ""
    ) -> T:
        """Publish and return the one reply, decoded as `expected`.

        Raises DeadlineExceeded, NoCapacity (nobody is subscribed), LinkLost (also when the link breaks while
        waiting: the request may have been taken), MalformedMessage, and what `publish` raises.
        """
        ...

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message. What a handler raises is logged and counted, and ends nothing."""
        ...

    async def respond(self, delivery: Delivery, message: Value | bytes) -> None:
        """Publish to the delivery's reply inbox; nothing happens where it has none."""
        ...

    def inbox(self) -> str:
        """Make a subject of one's own that nobody can guess."""
        ...

    async def flush(self, timeout_s: float) -> None:
        """Return once the server has everything published before. Raises DeadlineExceeded or LinkLost."""
        ...

    async def close(self) -> None:
        """Send what is buffered and disconnect, within a bound. Idempotent."""
        ...


def extract(delivery: Delivery) -> Context:
    """Take the trace context that the sender had."""
    return extract_context(delivery.headers)


def payload(message: Value | bytes) -> bytes:
    """Encode a message; bytes are taken as they are."""
    return message if isinstance(message, bytes) else encode(message)


def guard_size(data: bytes, headers: dict[str, str] | None, max_payload: int) -> None:
    """Raise TooLarge when payload and headers together come too near to the server's limit."""
    size = len(data)
    if headers:
        size += sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12
    limit = max_payload - RESERVED_BYTES
    if size > limit:
        raise TooLarge(f"a message of {size} bytes is above the bus's limit of {limit} bytes")


def call(handler: Handler, delivery: Delivery, stats: BusStats) -> None:
    """Hand over one message: whatever the handler raises must not end the subscription."""
    stats.delivered += 1
    if delivery.reply and not delivery.reply.startswith(INBOX):
        stats.refused_replies += 1
        log.warning("reply subject is no inbox and is not used", extra={"subject": delivery.subject})
        delivery.reply = ""
    try:
        handler(delivery)
    except (Exception, asyncio.CancelledError):  # a handler may touch a cancelled future
        stats.handler_errors += 1
        log.exception("handler failed", extra={"subject": delivery.subject, "bytes": len(delivery.data)})
