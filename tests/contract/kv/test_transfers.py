"""What arrives is what was sent, whichever way it came, and room comes back."""

import asyncio

import pytest
import uvloop

from shared.config import KvSettings
from shared.errors import BatonError, Overloaded, TooLarge
from shared.kv.layout import checksum
from shared.kv.wire import Answer
from tests.kv_ends import MIB, Ends, HandSender, descriptors

SIZE = 2 * MIB + 3


@pytest.mark.parametrize("nbytes", [1, 4096, MIB, 5 * MIB + 1])
async def test_the_buffer_arrives_as_it_was_sent(ends: Ends, nbytes: int) -> None:
    await ends.crosses(nbytes)
    assert ends.sending.in_use == ends.receiving.in_use == ends.receiver.expected == 0


async def test_concurrent_pushes_keep_their_bytes(ends: Ends) -> None:
    for turn in range(3):
        buffers = [ends.staged(MIB // 2 + index, bytes([1 + turn * 4 + index])) for index in range(4)]
        grants = [ends.granted(staging.nbytes) for staging in buffers]
        done = await asyncio.gather(*(ends.sender.push(s, g) for s, (_, g) in zip(buffers, grants, strict=True)))
        assert done == [ends.transport] * 4
        for staging, (push, _) in zip(buffers, grants, strict=True):
            received = await push.received()
            assert bytes(staging.view) == bytes(received.view)
            staging.release()
            received.release()


async def test_a_second_push_uses_the_connection_of_the_first(ends: Ends) -> None:
    await ends.crosses()
    opened = descriptors()
    await ends.crosses()
    assert descriptors() == opened
    assert len(ends.sender._pool) == 1


async def test_a_push_by_hand_is_what_the_protocol_says(ends: Ends, peer: HandSender) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peer.open(grant, staging) is Answer.GO
    await peer.payload(staging)
    assert await peer.finish(checksum(staging.view)) is Answer.DONE
    received = await push.received()
    assert bytes(received.view) == bytes(staging.view)
    with pytest.raises(RuntimeError, match="has its one receiver"):
        await push.received()
    push.cancel()
    assert ends.receiving.in_use > 0, "the buffer is its receiver's, not the push's"
    received.release()
    staging.release()


async def test_a_full_arena_and_too_many_transfers_are_overload_and_room_comes_back(ends: Ends) -> None:
    free = ends.receiving.size
    with pytest.raises(TooLarge):
        ends.granted(free + 1)
    whole, _ = ends.granted(free)
    with pytest.raises(Overloaded, match="staging"):
        ends.granted(1)
    whole.cancel()
    pushes = [ends.granted(1)[0] for _ in range(4)]
    with pytest.raises(Overloaded, match="4 KV pushes"):
        ends.granted(1)
    for push in pushes:
        push.cancel()
    await ends.crosses()


async def test_more_connections_than_allowed_cost_the_longest_idle_one(ends: Ends) -> None:
    peers = [await HandSender.connect(ends) for _ in range(60)]
    answers = await asyncio.gather(*(peer.answer() for peer in peers[:10]))
    assert answers == [None] * 10
    assert len(ends.receiver._intake._idle) <= 4 + 16
    await ends.crosses()
    for peer in peers:
        peer.close()


def test_it_works_on_uvloop_too(transport: str) -> None:
    async def both_ways() -> None:
        ends = await Ends.open(transport, KvSettings(max_transfers=2))
        await ends.crosses()
        await ends.crosses()
        staging = ends.staged(SIZE)
        push, grant = ends.granted(SIZE)
        peer = await HandSender.connect(ends)
        assert await peer.open(grant, staging) is Answer.GO
        push.cancel()
        assert await peer.answer() is None
        with pytest.raises(BatonError):
            await push.received()
        peer.close()
        staging.release()
        await ends.close()

    uvloop.new_event_loop().close()  # what it opens once per process is not ours
    before = descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both_ways())
    assert descriptors() == before
