"""The bus over a real NATS server, with the settings that its client and server need to fail early and honestly.

Owns one connection. A connection that is closed, for whatever reason, is told once to `on_closed`; it is never rebuilt
here, because whoever closed it (a revoked user, a protocol violation) had a reason.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from random import random
from types import UnionType
from typing import TypeVar

from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError

from shared.bus import (
    INBOX,
    NO_RESPONDERS,
    BusStats,
    Delivery,
    Handler,
    Subscription,
    call,
    guard_size,
    payload,
)
from shared.config import Nats
from shared.errors import BatonError, DeadlineExceeded, LinkLost, NoCapacity, Overloaded
from shared.messages import Value, decode
from shared.nats_client import RepairedClient
from shared.tasks import within
from shared.telemetry import trace_headers

T = TypeVar("T")
REFUSALS_THAT_END = 5
"""So many refused sign-ins in a row mean that this user was revoked; the client itself would try for ever."""

log = logging.getLogger(__name__)


class NatsBus:
    """Made by `open`. See `shared.bus.Bus` for what each method promises."""

    def __init__(self, settings: Nats, service: str, on_closed: Callable[[str], None] | None = None) -> None:
        self.stats = BusStats()
        self._settings = settings
        self._service = service
        self._on_closed = on_closed
        self._nc = RepairedClient()
        self._closing = False
        self._told = False
        self._refusals = 0
        self._last_error = ""
        self._refusal = ""  # says more than the broken connections that follow it
        self._waiting: dict[str, asyncio.Future[Delivery]] = {}
        self._replies = f"{INBOX}_{service}.{secrets.token_hex(12)}"

    @classmethod
    async def open(cls, settings: Nats, *, service: str, on_closed: Callable[[str], None] | None = None) -> "NatsBus":
        """Connect within `connect_timeout_s`. Raises LinkLost, naming what the server said, when it cannot."""
        bus = cls(settings, service, on_closed)
        user, password = settings.credentials_for(service)
        try:
            await within(settings.connect_timeout_s, bus._connect(user, password))
        except (TimeoutError, OSError, NatsError) as error:
            bus._closing = True
            await bus._close_client()
            why = bus._refusal or bus._last_error or str(error) or "no answer"
            raise LinkLost(f"cannot connect to NATS within {settings.connect_timeout_s:g} s: {why}") from error
        except asyncio.CancelledError:
            bus._closing = True
            await bus._close_client()
            raise
        return bus

    async def _connect(self, user: str, password: str) -> None:
        await self._nc.connect(
            self._settings.servers,
            name=self._service,
            user=user or None,
            password=password or None,
            connect_timeout=2,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2 + random() * 0.2,  # type: ignore[arg-type]  # noqa: S311  # jitter, not a secret
            ping_interval=1,
            max_outstanding_pings=2,
            pending_size=-1,  # publishes made while disconnected are refused, not kept
            drain_timeout=self._settings.drain_timeout_s,  # type: ignore[arg-type]
            inbox_prefix=f"{INBOX}_{self._service}",
            error_cb=self._on_error,
            closed_cb=self._on_client_closed,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        await self._nc.listen(f"{self._replies}.*", self._on_reply)
        await self._nc.flush()

    @property
    def connected(self) -> bool:
        """Whether a publish would be taken now."""
        return self._nc.is_connected and not self._closing

    @property
    def closed(self) -> bool:
        """Whether the connection is gone for good."""
        return self._nc.is_closed

    async def publish(self, subject: str, message: Value | bytes, *, reply: str = "", traced: bool = True) -> None:
        """See Bus."""
        data = payload(message)
        headers = trace_headers() if traced else None
        nc = self._nc
        try:
            guard_size(data, headers, nc.max_payload)
            if nc.pending_data_size > self._settings.max_pending_bytes:
                raise Overloaded(f"NATS takes nothing: {nc.pending_data_size} bytes wait to be sent")
            await nc.publish(subject, data, reply, headers)
        except NatsError as error:
            self.stats.refused += 1
            raise LinkLost(f"not connected to NATS: {error}") from error
        except BatonError:
            self.stats.refused += 1
            raise
        self.stats.published += 1

    async def request(
        self, subject: str, message: Value | bytes, expected: type[T] | UnionType, *, timeout_s: float, what: str = ""
    ) -> T:
        """See Bus."""
        token = secrets.token_hex(8)
        reply: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._waiting[token] = reply
        try:
            async with asyncio.timeout(timeout_s):
                await self.publish(subject, message, reply=f"{self._replies}.{token}")
                answer = await reply
        except TimeoutError as error:
            raise DeadlineExceeded(f"no {what or 'reply'} on {subject} within {timeout_s:g} s") from error
        finally:
            del self._waiting[token]
        if answer.headers.get("Status") == NO_RESPONDERS and not answer.data:
            raise NoCapacity(f"nobody listens on {subject}")
        result: T = decode(answer.data, expected, what or subject)
        return result

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """See Bus."""

        def take(subject: str, data: bytes, reply: str, headers: dict[str, str]) -> None:
            call(handler, Delivery(subject, data, reply, headers), self.stats)

        try:
            inner = await self._nc.listen(subject, take, queue=queue)
        except NatsError as error:
            raise LinkLost(f"cannot subscribe to {subject}: {error}") from error
        return _Subscription(inner)

    async def respond(self, delivery: Delivery, message: Value | bytes) -> None:
        """See Bus."""
        if delivery.reply:
            await self.publish(delivery.reply, message)

    def inbox(self) -> str:
        """See Bus."""
        return f"{INBOX}_{self._service}.{secrets.token_hex(12)}"

    async def flush(self, timeout_s: float) -> None:
        """See Bus."""
        if not self.connected:  # the client would wait for a pong that no connection brings
            raise LinkLost("not connected to NATS")
        try:
            async with asyncio.timeout(timeout_s):
                await self._nc.flush(timeout_s)
        except TimeoutError as error:  # the client's own timeout error is one, too
            raise DeadlineExceeded(f"NATS did not confirm within {timeout_s:g} s") from error
        except NatsError as error:
            raise LinkLost(f"not connected to NATS: {error}") from error

    async def close(self) -> None:
        """See Bus."""
        if self._closing:
            return
        if self._nc.is_connected:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                async with asyncio.timeout(self._settings.drain_timeout_s):
                    await self._nc.flush()
        self._closing = True
        await self._close_client()
        self._fail_waiting("the bus is closed")

    async def _close_client(self) -> None:
        try:
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._nc.close()
        except (NatsError, OSError, TimeoutError, AttributeError, AssertionError) as error:
            # what the client raises when it is closed while it connects or reconnects
            log.debug("closing NATS", extra={"error": repr(error)})

    def _fail_waiting(self, why: str) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkLost(f"{why}; whether the request was taken is unknown"))

    def _on_reply(self, subject: str, data: bytes, reply: str, headers: dict[str, str]) -> None:  # noqa: ARG002
        future = self._waiting.get(subject.rpartition(".")[2])
        if future is not None and not future.done():  # a late or second reply is nobody's
            future.set_result(Delivery(subject, data, "", headers))

    async def _on_error(self, error: Exception) -> None:
        """Count, never raise, never wait: an exception here would end the client's read loop."""
        self.stats.errors += 1
        self._last_error = str(error) or type(error).__name__
        if "authorization violation" in self._last_error.lower():
            self._nc.hang_up()
            self._refusals += 1
            self._refusal = self._last_error
            if self._refusals >= REFUSALS_THAT_END:
                self._tell(f"NATS refuses this user: {self._last_error}")
        log.warning("NATS reports an error", extra={"error": self._last_error})

    async def _on_disconnected(self) -> None:
        self._fail_waiting("the link to NATS broke")
        if not self._closing:
            log.warning("disconnected from NATS")

    async def _on_reconnected(self) -> None:
        self.stats.reconnects += 1
        self._refusals, self._refusal = 0, ""
        log.info("connected to NATS again")

    async def _on_client_closed(self) -> None:
        self._tell(
            f"the connection to NATS is closed for good: {self._last_error or self._nc.last_error or 'no reason given'}"
        )

    def _tell(self, why: str) -> None:
        if self._closing or self._told:
            return
        self._told = True
        self._fail_waiting("the link to NATS is closed")
        log.error(why)
        if self._on_closed is not None:
            self._on_closed(why)


class _Subscription:
    def __init__(self, inner: NatsSubscription) -> None:
        self._inner = inner
        self._stopped = False

    async def stop(self, timeout_s: float = 1.0) -> None:
        """Drain while connected; otherwise only forget the subscription."""
        if self._stopped:
            return
        self._stopped = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._inner.drain()  # type: ignore[no-untyped-call]
        except (NatsError, OSError, TimeoutError):
            with contextlib.suppress(NatsError, OSError):
                await self._inner.unsubscribe()
