"""What every bus promises of its connection: how it breaks, heals and closes."""

import asyncio

import pytest

from shared.errors import LinkLost
from shared.messages import Done
from tests.contract.bus.links import Heard, Link
from tests.waiting import until


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
