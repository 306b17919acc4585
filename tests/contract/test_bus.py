"""What every bus promises, over memory and over a real nats-server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from shared.bus import RESERVED_BYTES, Bus, Delivery, extract
from shared.errors import DeadlineExceeded, LinkLost, MalformedMessage, NoCapacity, TooLarge
from shared.messages import Cancel, Done, Rejected, encode
from shared.nats_bus import NatsBus
from tests.fakes import MAX_PAYLOAD, Hub
from tests.servers import NatsServer
from tests.waiting import until

LARGEST = MAX_PAYLOAD - RESERVED_BYTES


class Link:
    """Makes buses of one kind and breaks the link between them."""

    def __init__(
        self, open_bus: Callable[[str], Awaitable[Bus]], cut: Callable[[], None], heal: Callable[[], None]
    ) -> None:
        self.cut = cut
        self.heal = heal
        self._open_bus = open_bus
        self._opened: list[Bus] = []

    async def bus(self, service: str = "tests") -> Bus:
        bus = await self._open_bus(service)
        self._opened.append(bus)
        return bus

    async def close(self) -> None:
        for bus in self._opened:
            await bus.close()


@pytest.fixture(params=["memory", "nats"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def link(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Link]:
    link = _memory() if kind == "memory" else _nats(request.getfixturevalue("nats_server"))
    yield link
    await link.close()


@pytest.fixture
async def fragile(kind: str, tmp_path: Path) -> AsyncIterator[Link]:
    """A link that may be cut."""
    if kind == "memory":
        link = _memory()
        yield link
        await link.close()
        return
    server = NatsServer(tmp_path)
    server.start()
    link = _nats(server)
    yield link
    await link.close()
    server.kill()


def _memory() -> Link:
    hub = Hub()

    async def open_bus(service: str) -> Bus:
        return hub.bus(service)

    return Link(open_bus, hub.cut, hub.heal)


def _nats(server: NatsServer) -> Link:
    async def open_bus(service: str) -> Bus:
        return await NatsBus.open(server.settings(), service=service)

    def heal() -> None:
        server.start()

    return Link(open_bus, server.kill, heal)


class Heard:
    """A handler that keeps what it was given, with waiting for a number of messages."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def data(self) -> list[bytes]:
        return [delivery.data for delivery in self.deliveries]

    async def count(self, number: int) -> None:
        await until(lambda: len(self.deliveries) >= number, f"{number} messages come")


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> str:
    return f"contract.{abs(hash(request.node.nodeid))}"


async def test_a_message_reaches_every_subscriber_and_keeps_its_order(link: Link, subject: str) -> None:
    sender, receiver = await link.bus(), await link.bus()
    first, second = Heard(), Heard()
    await receiver.subscribe(subject, first)
    await receiver.subscribe(subject, second)
    await receiver.flush(5)
    sent = [str(number).encode() for number in range(1000)]
    for data in sent:
        await sender.publish(subject, data)
    await first.count(1000)
    await second.count(1000)
    assert first.data == second.data == sent
    assert first.deliveries[0].subject == subject
    assert sender.stats.published == 1000
    assert receiver.stats.delivered == 2000


async def test_a_star_hears_one_word_and_no_more(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()
    await bus.subscribe(f"{subject}.status.*", heard)
    await bus.flush(5)
    await bus.publish(f"{subject}.status.a.b", b"deeper")
    await bus.publish(f"{subject}.status", b"shorter")
    await bus.publish(f"{subject}.status.a", b"right")
    await heard.count(1)
    assert heard.data == [b"right"]


async def test_a_queue_group_shares_messages_without_repeating_one(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()
    for _ in range(3):
        await bus.subscribe(subject, heard, queue="gateways")
    await bus.flush(5)
    for number in range(60):
        await bus.publish(subject, str(number).encode())
    await heard.count(60)
    await bus.flush(5)
    assert sorted(map(int, heard.data)) == list(range(60))


async def test_a_request_gets_the_reply_of_whoever_listens(link: Link, subject: str) -> None:
    asker, worker = await link.bus("gateway"), await link.bus("prefill")
    answers: list[asyncio.Task[None]] = []

    def answer(delivery: Delivery) -> None:
        answers.append(asyncio.ensure_future(worker.respond(delivery, Done(instance="p1"))))

    await worker.subscribe(subject, answer)
    await worker.flush(5)
    reply: Done | Rejected = await asker.request(subject, Cancel("r", 0), Done | Rejected, timeout_s=5)
    assert reply == Done(instance="p1")
    await asyncio.gather(*answers)


async def test_replies_to_requests_in_flight_are_not_mixed_up(link: Link, subject: str) -> None:
    asker, worker = await link.bus("gateway"), await link.bus("prefill")
    questions: list[Delivery] = []
    await worker.subscribe(subject, questions.append)
    await worker.flush(5)

    async def ask(number: int) -> str:
        done: Done = await asker.request(subject, str(number).encode(), Done, timeout_s=5)
        return done.instance

    asked = [asyncio.ensure_future(ask(number)) for number in range(20)]
    await until(lambda: len(questions) == 20, "all questions come")
    for question in reversed(questions):
        await worker.respond(question, Done(instance=question.data.decode()))
    assert await asyncio.gather(*asked) == [str(number) for number in range(20)]


async def test_a_request_that_nobody_listens_to_fails_at_once(link: Link, subject: str) -> None:
    bus = await link.bus()
    started = time.monotonic()
    with pytest.raises(NoCapacity, match="nobody listens"):
        await bus.request(subject, b"", Done, timeout_s=60)
    assert time.monotonic() - started < 30


async def test_a_request_without_an_answer_ends_at_its_deadline(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    with pytest.raises(DeadlineExceeded, match=r"no offer on .* within 0\.05 s"):
        await bus.request(subject, b"", Done, timeout_s=0.05, what="offer")
    await heard.count(1)
    await bus.respond(heard.deliveries[0], Done(instance="late"))  # nobody's any more, and harmless
    await bus.flush(5)
    assert bus.stats.handler_errors == 0


async def test_a_cancelled_request_stays_cancelled(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    asking = asyncio.ensure_future(bus.request(subject, b"", Done, timeout_s=60))
    await heard.count(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize(
    "answer", [b"", b"\xc1", b"\x80", encode(Cancel("r", 0))], ids=["empty", "bad", "map", "other"]
)
async def test_a_reply_that_is_no_message_is_malformed(link: Link, subject: str, answer: bytes) -> None:
    bus, heard = await link.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    asking = asyncio.ensure_future(bus.request(subject, b"", Done, timeout_s=5))
    await heard.count(1)
    await bus.publish(heard.deliveries[0].reply, answer)
    with pytest.raises(MalformedMessage):
        await asking


async def test_a_handler_that_raises_is_counted_and_called_again(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()

    def handler(delivery: Delivery) -> None:
        heard(delivery)
        if delivery.data == b"cancelled":
            raise asyncio.CancelledError
        raise RuntimeError("a bug in a handler")

    await bus.subscribe(subject, handler)
    await bus.flush(5)
    for data in (b"first", b"cancelled", b"last"):
        await bus.publish(subject, data)
    await heard.count(3)
    assert heard.data == [b"first", b"cancelled", b"last"]
    assert bus.stats.handler_errors == 3


async def test_the_size_limit_is_exact_and_the_connection_survives_it(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    await bus.publish(subject, bytes(LARGEST))
    for size in (LARGEST + 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 64 << 20):
        with pytest.raises(TooLarge, match=f"{size} bytes is above the bus's limit of {LARGEST} bytes"):
            await bus.publish(subject, bytes(size))
    await bus.publish(subject, b"still here")
    await heard.count(2)
    assert [len(data) for data in heard.data] == [LARGEST, 10]
    assert bus.connected
    assert bus.stats.refused == 4


@contextlib.contextmanager
def span() -> Iterator[trace.SpanContext]:
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("request") as current:
        yield current.get_span_context()


async def test_headers_count_against_the_size_limit(link: Link, subject: str) -> None:
    bus = await link.bus()
    with span():
        with pytest.raises(TooLarge):
            await bus.publish(subject, bytes(LARGEST))
        await bus.publish(subject, bytes(LARGEST), traced=False)
    await bus.flush(5)
    assert bus.connected


async def test_the_trace_goes_along_unless_it_is_left_out(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    with span() as context:
        await bus.publish(subject, b"traced")
        await bus.publish(subject, b"bare", traced=False)
    await bus.publish(subject, b"outside")
    await heard.count(3)
    traced, bare, outside = heard.deliveries
    assert trace.get_current_span(extract(traced)).get_span_context().trace_id == context.trace_id
    assert bare.headers == outside.headers == {}
    assert not trace.get_current_span(extract(bare)).get_span_context().is_valid


async def test_a_reply_subject_that_is_no_inbox_is_never_used(link: Link, subject: str) -> None:
    bus, heard, control = await link.bus(), Heard(), Heard()
    await bus.subscribe(subject, heard)
    await bus.subscribe("contract._control.decode-1", control)
    await bus.flush(5)
    await bus.publish(subject, b"x", reply="contract._control.decode-1")
    await heard.count(1)
    await bus.respond(heard.deliveries[0], Done(instance="me"))
    await bus.flush(5)
    assert control.deliveries == []
    assert bus.stats.refused_replies == 1


async def test_an_inbox_is_ones_own(link: Link) -> None:
    bus = await link.bus("gateway")
    names = {bus.inbox() for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith("_INBOX_gateway.") for name in names)


async def test_a_stopped_subscription_has_handed_over_what_came_and_hears_no_more(link: Link, subject: str) -> None:
    bus, heard = await link.bus(), Heard()
    subscription = await bus.subscribe(subject, heard)
    await bus.flush(5)
    for number in range(50):
        await bus.publish(subject, str(number).encode())
    await bus.flush(5)
    await subscription.stop()
    await bus.publish(subject, b"too late")
    await bus.flush(5)
    await subscription.stop()
    assert len(heard.data) == 50
    with pytest.raises(NoCapacity):
        await bus.request(subject, b"", Done, timeout_s=5)


async def test_a_flood_is_handed_over_whole_and_in_order(link: Link, subject: str) -> None:
    sender, bus, heard = await link.bus(), await link.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    for number in range(5000):
        await sender.publish(subject, b"%d" % number)
    await until(lambda: bus.stats.delivered >= 5000, "all are handed over")
    assert heard.data == [b"%d" % number for number in range(5000)]


async def test_a_link_that_breaks_fails_requests_refuses_publishes_and_heals(fragile: Link, subject: str) -> None:
    bus, heard = await fragile.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    asking = asyncio.ensure_future(bus.request(subject, b"before", Done, timeout_s=60))
    await heard.count(1)
    fragile.cut()
    with pytest.raises(LinkLost, match="unknown"):
        await asking
    await until(lambda: not bus.connected, "the break is noticed")
    with pytest.raises(LinkLost, match="not connected"):
        await bus.publish(subject, b"while down")
    with pytest.raises(LinkLost):
        await bus.flush(1)
    assert not bus.closed
    fragile.heal()
    await until(lambda: bus.connected, "the link is back")
    await bus.publish(subject, b"after")
    await heard.count(2)
    assert heard.data == [b"before", b"after"]
    assert bus.stats.reconnects == 1


async def test_closing_while_the_link_is_down_ends_and_can_be_repeated(fragile: Link, subject: str) -> None:
    bus = await fragile.bus()
    await bus.subscribe(subject, Heard())
    fragile.cut()
    await until(lambda: not bus.connected, "the break is noticed")
    async with asyncio.timeout(10):
        await bus.close()
        await bus.close()
    with pytest.raises(LinkLost):
        await bus.publish(subject, b"x")


async def test_a_closed_bus_sends_what_it_had_and_then_refuses(link: Link, subject: str) -> None:
    sender, receiver, heard = await link.bus(), await link.bus(), Heard()
    await receiver.subscribe(subject, heard)
    await receiver.flush(5)
    await sender.publish(subject, b"last words")
    await sender.close()
    await heard.count(1)
    assert sender.closed
    assert not sender.connected
    with pytest.raises(LinkLost):
        await sender.publish(subject, b"x")
    with pytest.raises(LinkLost):
        await sender.subscribe(subject, heard)
