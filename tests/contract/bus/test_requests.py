"""What every bus promises of a request: one reply to whoever asked, or one error in time."""

import asyncio
import time

import pytest

from shared.bus import Delivery
from shared.errors import DeadlineExceeded, MalformedMessage, NoCapacity
from shared.messages import Cancel, Done, Rejected, encode
from tests.contract.bus.links import Heard, Link
from tests.waiting import until


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
