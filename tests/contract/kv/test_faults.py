"""The other end dies, stalls or lies."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from shared.errors import DeadlineExceeded, Draining, KvRefused, WorkerLost
from shared.kv.arena import Range
from shared.kv.sender import Sender
from shared.kv.wire import Answer, pack_answer
from shared.messages import KvGrant, decode, encode
from tests.kv_child import SIZE
from tests.kv_ends import Ends, HandReceiver
from tests.waiting import until

REPOSITORY = Path(__file__).parents[3]
GO, DONE = pack_answer(Answer.GO), pack_answer(Answer.DONE)


async def child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kv_child", *arguments, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


async def test_a_sender_killed_mid_push_costs_one_ticket(ends: Ends) -> None:
    push, grant = ends.granted(SIZE)
    process = await child("push", encode(grant).hex())
    assert await line(process) == "halfway"
    process.send_signal(signal.SIGKILL)
    with pytest.raises(KvRefused) as raised:
        await push.received()
    assert raised.value.reason == "length"
    await process.wait()
    await until(lambda: ends.receiving.in_use == 0, "the staging is released")
    await ends.crosses()


async def test_a_receiver_killed_mid_push_is_a_lost_worker_and_the_buffer_can_go_elsewhere(ends: Ends) -> None:
    process = await child("receive", ends.transport)
    grant = decode(bytes.fromhex(await line(process)), KvGrant)
    staging = ends.staged(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    assert await line(process) == "halfway"
    process.send_signal(signal.SIGKILL)
    with pytest.raises(WorkerLost):
        await pushing
    await process.wait()
    push, second = ends.granted(SIZE)
    assert await ends.sender.push(staging, second) == ends.transport
    received = await push.received()
    assert bytes(received.view) == bytes(staging.view)
    received.release()
    staging.release()


async def test_a_kept_connection_that_died_is_replaced_unnoticed(ends: Ends) -> None:
    await ends.crosses()
    for link in list(ends.receiver._intake._idle):
        link.cut()
    await ends.crosses()


async def test_a_receiver_that_closes_empties_the_senders_pool(ends: Ends) -> None:
    await ends.crosses()
    await ends.receiver.close()
    await until(lambda: len(ends.sender._pool) == 0, "the dead connection is dropped")


async def test_cancelling_a_push_to_a_stalled_receiver_ends_it_at_once(
    sender: Sender, staging: Range, liar: HandReceiver
) -> None:
    playing = asyncio.create_task(liar.play(GO))
    pushing = asyncio.create_task(sender.push(staging, liar.grant()))
    await liar.began.wait()
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert not sender._moving
    playing.cancel()


@pytest.mark.parametrize("answers", [(), (GO,)])
async def test_a_push_to_a_stalled_receiver_ends_at_its_deadline(
    sender: Sender, staging: Range, liar: HandReceiver, answers: tuple[bytes, ...]
) -> None:
    playing = asyncio.create_task(liar.play(*answers))
    with pytest.raises(DeadlineExceeded):
        await sender.push(staging, liar.grant(300))
    assert not sender._moving
    playing.cancel()


async def test_closing_the_sender_ends_a_stalled_push(sender: Sender, staging: Range, liar: HandReceiver) -> None:
    playing = asyncio.create_task(liar.play(GO))
    pushing = asyncio.create_task(sender.push(staging, liar.grant()))
    await liar.began.wait()
    await sender.close()
    with pytest.raises(Draining):
        await pushing
    playing.cancel()


@pytest.mark.parametrize("answer", [b"HTTP/1.1", DONE[:4] + b"\0\2" + DONE[6:], DONE[:6] + b"\xff\xff"])
async def test_a_receiver_that_speaks_something_else_is_no_receiver(
    sender: Sender, staging: Range, liar: HandReceiver, answer: bytes
) -> None:
    playing = asyncio.create_task(liar.play(answer))
    with pytest.raises((WorkerLost, KvRefused)):
        await sender.push(staging, liar.grant())
    playing.cancel()


async def test_pushes_beyond_the_limit_wait_no_longer_than_their_deadline(
    sender: Sender, staging: Range, liar: HandReceiver
) -> None:
    playing = asyncio.create_task(liar.play(GO))
    stalled = [asyncio.create_task(sender.push(staging, liar.grant())) for _ in range(2)]
    await liar.began.wait()
    with pytest.raises(DeadlineExceeded):
        await sender.push(staging, liar.grant(100))
    for task in stalled:
        task.cancel()
    assert [type(end) for end in await asyncio.gather(*stalled, return_exceptions=True)] == [asyncio.CancelledError] * 2
    playing.cancel()
