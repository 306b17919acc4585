"""Stand-ins that keep the real thing's promises: a bus in memory, a clock that only tests move, and builders.

`tests/contract/bus` runs one suite over `MemoryBus` and the real bus.
"""

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Callable
from types import UnionType
from typing import TypeVar

from shared.bus import INBOX, BusStats, Delivery, Handler, call, guard_size, payload
from shared.errors import BatonError, DeadlineExceeded, LinkLost, NoCapacity, Overloaded
from shared.messages import Request, Sampling, Stopping, Value, decode, pack_tokens
from shared.telemetry import trace_headers

T = TypeVar("T")
MAX_PAYLOAD = 1 << 20


class Clock:
    """Monotonic seconds that stand still until a test advances them."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        self.now += seconds
        return self.now


class Hub:
    """The server between memory buses. Records what passes, and can lose it, hold it or break every link."""

    def __init__(self) -> None:
        self.passed: list[tuple[str, bytes]] = []
        self.loses: Callable[[str, bytes], bool] = lambda _subject, _data: False
        self.up = True
        self.takes = True  # False: it stands still and takes nothing, as a stopped server does
        self.subscriptions: list[_Subscription] = []
        self.buses: list[MemoryBus] = []

    def bus(self, service: str = "tests") -> "MemoryBus":
        return MemoryBus(self, service)

    def cut(self) -> None:
        """Break every link; what is published meanwhile is refused, not kept."""
        self.up = False
        for bus in self.buses:
            bus.fail_waiting("the link broke")

    def heal(self) -> None:
        self.up = True
        for bus in self.buses:
            bus.stats.reconnects += 1

    def route(self, delivery: Delivery) -> bool:
        """Hand a message to whoever is interested: all plain subscriptions, one of each queue group."""
        self.passed.append((delivery.subject, delivery.data))
        if self.loses(delivery.subject, delivery.data):
            return True
        groups: dict[str, list[_Subscription]] = {}
        interested = [s for s in self.subscriptions if s.matches(delivery.subject)]
        for subscription in interested:
            groups.setdefault(subscription.queue or f"one {id(subscription)}", []).append(subscription)
        for members in groups.values():
            chosen = members[secrets.randbelow(len(members))]
            chosen.put(Delivery(delivery.subject, delivery.data, delivery.reply, dict(delivery.headers)))
        return bool(interested)


class _Subscription:
    def __init__(self, bus: "MemoryBus", subject: str, handler: Handler, queue: str) -> None:
        self._bus = bus
        self._handler = handler
        self._pattern = re.compile(
            r"\.".join("[^.]+" if p == "*" else ".+" if p == ">" else re.escape(p) for p in subject.split("."))
        )
        self._pending: deque[Delivery] = deque()
        self.queue = queue

    def matches(self, subject: str) -> bool:
        return self._pattern.fullmatch(subject) is not None

    def put(self, delivery: Delivery) -> None:
        self._pending.append(delivery)
        asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._pending and not self._bus.closed:
            delivery = self._pending.popleft()
            call(self._handler, delivery, self._bus.stats)

    async def stop(self, timeout_s: float = 1.0) -> None:
        if self in self._bus.hub.subscriptions:
            self._bus.hub.subscriptions.remove(self)
        while self._pending and not self._bus.closed:  # noqa: ASYNC110  # each turn of the loop hands one over
            await asyncio.sleep(0)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class MemoryBus:
    """See `shared.bus.Bus`."""

    def __init__(self, hub: Hub, service: str = "tests") -> None:
        self.hub = hub
        self.stats = BusStats()
        self.max_pending_bytes = 8 << 20
        self._service = service
        self._closed = False
        self._unsent = 0
        self._waiting: set[asyncio.Future[Delivery]] = set()
        hub.buses.append(self)

    @property
    def connected(self) -> bool:
        return self.hub.up and not self._closed

    @property
    def closed(self) -> bool:
        return self._closed

    async def publish(self, subject: str, message: Value | bytes, *, reply: str = "", traced: bool = True) -> None:
        self._send(subject, message, reply, traced=traced)

    def _send(self, subject: str, message: Value | bytes, reply: str, *, traced: bool) -> bool:
        data = payload(message)
        headers = trace_headers() if traced else None
        try:
            guard_size(data, headers, MAX_PAYLOAD)
            if self._unsent > self.max_pending_bytes:
                raise Overloaded(f"NATS takes nothing: {self._unsent} bytes wait to be sent")
            if not self.connected:
                raise LinkLost("not connected to NATS")
        except BatonError:
            self.stats.refused += 1
            raise
        self.stats.published += 1
        if not self.hub.takes:
            self._unsent += len(data)
            return True
        return self.hub.route(Delivery(subject, data, reply, headers or {}))

    async def request(
        self, subject: str, message: Value | bytes, expected: type[T] | UnionType, *, timeout_s: float, what: str = ""
    ) -> T:
        answer: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        reply = self.inbox()
        subscription = await self.subscribe(reply, lambda d: None if answer.done() else answer.set_result(d))
        try:
            async with asyncio.timeout(timeout_s):
                if not self._send(subject, message, reply, traced=True):
                    raise NoCapacity(f"nobody listens on {subject}")
                delivery = await answer
        except TimeoutError as error:
            raise DeadlineExceeded(f"no {what or 'reply'} on {subject} within {timeout_s:g} s") from error
        finally:
            self._waiting.discard(answer)
            if subscription in self.hub.subscriptions:
                self.hub.subscriptions.remove(subscription)
        result: T = decode(delivery.data, expected, what or subject)
        return result

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> _Subscription:
        if self._closed:
            raise LinkLost(f"cannot subscribe to {subject}: the bus is closed")
        subscription = _Subscription(self, subject, handler, queue)
        self.hub.subscriptions.append(subscription)
        return subscription

    async def respond(self, delivery: Delivery, message: Value | bytes) -> None:
        if delivery.reply:
            await self.publish(delivery.reply, message)

    def inbox(self) -> str:
        return f"{INBOX}_{self._service}.{secrets.token_hex(12)}"

    async def flush(self, timeout_s: float) -> None:
        if not self.connected:
            raise LinkLost("not connected to NATS")
        if not self.hub.takes:
            await asyncio.sleep(timeout_s)
            raise DeadlineExceeded(f"NATS did not confirm within {timeout_s:g} s")
        await asyncio.sleep(0)

    async def close(self) -> None:
        self._closed = True
        self.hub.subscriptions = [s for s in self.hub.subscriptions if s._bus is not self]
        self.fail_waiting("the bus is closed")

    def fail_waiting(self, why: str) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(LinkLost(f"{why}; whether the request was taken is unknown"))


def a_request(request_id: str = "r1", *, tokens: tuple[int, ...] = (1, 2, 3), **changes: object) -> Request:
    """A request as the gateway would send it; name what matters to the test, leave the rest."""
    fields: dict[str, object] = {
        "request_id": request_id,
        "attempt": 0,
        "gateway": "gateway-1",
        "stream": 1,
        "tokens": pack_tokens(list(tokens)),
        "prompt_tokens": len(tokens),
        "sampling": Sampling(),
        "stopping": Stopping(max_tokens=16),
        "deadline_ms": 4_000_000_000_000,
        "expires_ms": 4_000_000_000_000,
    }
    return Request(**{**fields, **changes})  # type: ignore[arg-type]
