"""Deadlines, cancellation and closing end a push at any point, and nothing is left of it."""

import asyncio
from contextlib import suppress

import pytest

from shared.errors import BatonError, DeadlineExceeded, Draining
from shared.kv import intake
from shared.kv.arena import Range
from shared.kv.wire import Answer
from tests.kv_ends import MIB, Ends, HandSender, in_ms
from tests.waiting import until

SIZE = 2 * MIB + 3


async def test_a_late_push_is_refused_and_its_staging_was_released_at_the_deadline(
    ends: Ends, peer: HandSender
) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE, milliseconds=50)
    with pytest.raises(DeadlineExceeded):
        await push.received()
    assert ends.receiving.in_use == 0
    assert await peer.open(grant, staging) is Answer.TICKET
    with pytest.raises(DeadlineExceeded, match="after its deadline"):
        await ends.sender.push(staging, grant)
    staging.release()


async def test_nothing_is_granted_after_its_deadline(ends: Ends) -> None:
    with pytest.raises(DeadlineExceeded):
        ends.receiver.expect("late#0", 10, in_ms(-1))
    assert ends.receiving.in_use == 0


async def test_a_sender_that_falls_silent_mid_push_is_cut_at_the_deadline(ends: Ends, peer: HandSender) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE, milliseconds=200)
    assert await peer.open(grant, staging) is Answer.GO
    await peer.payload(staging, upto=SIZE // 2)
    with pytest.raises(DeadlineExceeded):
        await push.received()
    assert await peer.answer() is None
    staging.release()


async def test_a_sender_of_single_bytes_is_cut_at_the_deadline(ends: Ends, peer: HandSender) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE, milliseconds=200)
    assert await peer.open(grant, staging) is Answer.GO

    async def dribble() -> None:
        while True:
            await peer.send(b"x" if ends.transport == "tcp" or push.waiting else b"")
            await asyncio.sleep(0.01)

    dribbling = asyncio.create_task(dribble())
    with pytest.raises(DeadlineExceeded):
        await push.received()
    assert await peer.answer() is None
    dribbling.cancel()
    with suppress(asyncio.CancelledError, ConnectionError):
        await dribbling
    staging.release()


async def test_an_arrived_buffer_that_nobody_takes_is_released_at_the_deadline(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE, milliseconds=1500)
    await ends.sender.push(staging, grant)
    await until(lambda: ends.receiving.in_use == 0, "the staging is released")
    with pytest.raises(DeadlineExceeded):
        await push.received()
    staging.release()


@pytest.mark.parametrize("said", [b"", b"B", b"BtKV"])
async def test_a_connection_that_says_too_little_is_closed(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(intake, "RECORD_S", 0.1)
    peer = await HandSender.connect(ends)
    await peer.send(said)
    assert await peer.answer() is None
    peer.close()
    await ends.crosses()


async def test_cancelling_the_wait_for_a_moving_push_ends_it(ends: Ends, peer: HandSender) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    waiting = asyncio.create_task(push.received())
    assert await peer.open(grant, staging) is Answer.GO
    await peer.payload(staging, upto=SIZE // 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await peer.answer() is None
    staging.release()


async def test_closing_the_receiver_ends_every_push_in_whatever_state(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    idle, _ = ends.granted(SIZE)
    moving, moving_grant = ends.granted(SIZE)
    arrived, arrived_grant = ends.granted(SIZE)
    await ends.sender.push(staging, arrived_grant)
    peer = await HandSender.connect(ends)
    assert await peer.open(moving_grant, staging) is Answer.GO
    await ends.receiver.close()
    for push in (idle, moving, arrived):
        with pytest.raises(Draining):
            await push.received()
    assert ends.receiving.in_use == ends.receiver.expected == 0
    with pytest.raises(Draining):
        ends.granted(1)
    with pytest.raises(BatonError):
        await ends.sender.push(staging, moving_grant)
    peer.close()
    staging.release()


@pytest.mark.parametrize("cancelled", ["the push", "the wait"])
async def test_a_cancellation_at_any_point_leaves_nothing_behind(ends: Ends, cancelled: str) -> None:
    staging = ends.staged(SIZE)
    for turns in range(1, 40):  # from 1: what was cancelled before it began cannot clean up
        push, grant = ends.granted(SIZE)
        pushing = asyncio.create_task(ends.sender.push(staging, grant))
        waiting = asyncio.create_task(push.received())
        victim, other = (pushing, waiting) if cancelled == "the push" else (waiting, pushing)
        for _ in range(turns):
            await asyncio.sleep(0.0002 if turns % 2 else 0)  # not a verdict: whatever point it hits must do
        victim.cancel()
        if victim is pushing:
            await asyncio.wait([pushing])
            await asyncio.sleep(0)
            if not waiting.done() and push.waiting:
                push.cancel()  # what decode does when it is told that nothing will come
        for end in await asyncio.gather(victim, other, return_exceptions=True):
            if isinstance(end, Range):
                assert bytes(end.view) == bytes(staging.view)
                end.release()
            else:
                assert end == ends.transport or isinstance(end, asyncio.CancelledError | BatonError), end
        assert not ends.sender._moving
    await until(lambda: ends.receiving.in_use == 0 and ends.receiver.expected == 0, "the receiver's staging is free")
    staging.release()
    await ends.crosses()
