"""What every bus promises of a published message: who hears it, in which order, how large it is, with which headers."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from shared.bus import RESERVED_BYTES, Delivery, extract
from shared.errors import NoCapacity, TooLarge
from shared.messages import Done
from tests.contract.bus.links import Heard, Link
from tests.fakes import MAX_PAYLOAD
from tests.waiting import until

LARGEST = MAX_PAYLOAD - RESERVED_BYTES


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


async def test_a_flood_is_handed_over_whole_and_in_order(link: Link, subject: str) -> None:
    sender, bus, heard = await link.bus(), await link.bus(), Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(5)
    for number in range(5000):
        await sender.publish(subject, b"%d" % number)
    await until(lambda: bus.stats.delivered >= 5000, "all are handed over")
    assert heard.data == [b"%d" % number for number in range(5000)]


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
