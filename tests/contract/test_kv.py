"""The KV hand-off over each transport: what arrives is what was sent, what is wrong is refused, nothing leaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from shared.config import KvSettings
from shared.errors import BatonError, Cancelled, DeadlineExceeded, Draining, KvRefused, Overloaded, TooLarge
from shared.kv import intake
from shared.kv.layout import checksum
from shared.kv.tickets import Push
from shared.kv.wire import OPENING_BYTES, Answer, opening_for
from tests.kv_ends import MIB, Ends, HandSender, descriptors, in_ms
from tests.waiting import until

SIZE = 2 * MIB + 3


@pytest.fixture(params=["tcp", "shm"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def ends(transport: str) -> AsyncIterator[Ends]:
    before = descriptors()
    ends = await Ends.open(transport, KvSettings(max_transfers=4))
    yield ends
    await ends.close()
    assert descriptors() == before


@pytest.fixture
async def peer(ends: Ends) -> AsyncIterator[HandSender]:
    """A sender by hand; after what it did, an ordinary push must still arrive and no staging be held."""
    peer = await HandSender.connect(ends)
    yield peer
    peer.close()
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is released")
    assert ends.receiver.expected == 0
    await ends.crosses()


async def refused(push: Push, reason: str) -> None:
    with pytest.raises(KvRefused) as raised:
        await push.received()
    assert raised.value.reason == reason


# ---- what goes well --------------------------------------------------------------------------------------------------


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


# ---- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, MIB, SIZE - 1])
async def test_one_flipped_bit_of_the_payload_is_refused(ends: Ends, peer: HandSender, position: int) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    digest = checksum(staging.view)
    staging.view[position] ^= 0x40
    assert await peer.open(grant, staging) is Answer.GO
    await peer.payload(staging)
    assert await peer.finish(digest) is Answer.CHECKSUM
    assert await peer.answer() is None, "the connection is closed after a refusal"
    await refused(push, "checksum")
    staging.release()


async def test_one_flipped_bit_of_the_checksum_is_refused(ends: Ends, peer: HandSender) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peer.open(grant, staging) is Answer.GO
    await peer.payload(staging)
    digest = bytearray(checksum(staging.view))
    digest[-1] ^= 1
    assert await peer.finish(bytes(digest)) is Answer.CHECKSUM
    await refused(push, "checksum")
    staging.release()


async def test_a_flipped_bit_anywhere_in_the_opening_is_refused(ends: Ends) -> None:
    staging = ends.staged(100)
    reasons = set()
    for position in range(OPENING_BYTES):
        push, grant = ends.granted(100)
        peer = await HandSender.connect(ends)
        opening = bytearray(opening_for(grant, 100, staging.offset).pack())
        opening[position] ^= 1 << position % 8
        await peer.send(bytes(opening))
        answer = await peer.answer()
        if answer is Answer.GO:  # only a wrong place in shared memory is seen by nothing but the checksum
            assert ends.transport == "shm"
            assert position >= OPENING_BYTES - 8
            answer = await peer.finish(checksum(staging.view))
        assert answer is not None
        reasons.add(answer)
        push.cancel()
        peer.close()
    staging.release()
    assert reasons >= {Answer.MALFORMED, Answer.VERSION, Answer.TICKET, Answer.LENGTH}
    assert not reasons & {Answer.GO, Answer.DONE}
    await ends.crosses()


@pytest.mark.parametrize("length", [0, SIZE - 1, SIZE + 1, 2**64 - 1])
async def test_another_length_is_refused_and_uses_the_ticket_up(ends: Ends, peer: HandSender, length: int) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peer.open(grant, staging, length=length) is Answer.LENGTH
    await refused(push, "length")
    with pytest.raises(KvRefused, match="ticket"):
        await ends.sender.push(staging, grant)
    staging.release()


async def test_a_buffer_of_another_length_than_granted_is_refused_to_an_honest_sender(ends: Ends) -> None:
    staging = ends.staged(100)
    push, grant = ends.granted(200)
    with pytest.raises(KvRefused, match="length") as raised:
        await ends.sender.push(staging, grant)
    assert raised.value.reason == "length"
    await refused(push, "length")
    staging.release()


async def test_a_truncated_push_costs_one_ticket_at_once(ends: Ends, peer: HandSender) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peer.open(grant, staging) is Answer.GO
    await peer.payload(staging, upto=SIZE // 2)
    peer.close()
    await refused(push, "length")
    staging.release()


async def test_bytes_after_the_push_are_no_push(ends: Ends, peer: HandSender) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peer.open(grant, staging) is Answer.GO
    await peer.payload(staging)
    assert await peer.finish(checksum(staging.view) + b"more" * OPENING_BYTES) is Answer.DONE
    assert await peer.answer() in {Answer.MALFORMED, None}
    (await push.received()).release()
    staging.release()


async def test_swapped_tickets_are_refused(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    grants = [ends.granted(SIZE) for _ in range(2)]
    for (_, own), (_, other) in (grants, grants[::-1]):
        peer = await HandSender.connect(ends)
        assert await peer.open(own, staging, ticket=other.ticket) is Answer.TICKET
        peer.close()
    for push, _ in grants:
        await refused(push, "ticket")
    staging.release()
    await ends.crosses()


async def test_a_used_ticket_is_refused(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    await ends.sender.push(staging, grant)
    with pytest.raises(KvRefused) as raised:
        await ends.sender.push(staging, grant)
    assert raised.value.reason == "ticket"
    received = await push.received()
    assert bytes(received.view) == bytes(staging.view)
    received.release()
    staging.release()


async def test_two_pushes_with_one_ticket_at_the_same_time_are_one(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    both = await asyncio.gather(*(ends.sender.push(staging, grant) for _ in range(2)), return_exceptions=True)
    assert sorted(isinstance(one, KvRefused) for one in both) == [False, True]
    (await push.received()).release()
    staging.release()


async def test_the_ticket_of_a_cancelled_push_is_refused(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    push.cancel()
    push.cancel()
    assert ends.receiving.in_use == 0
    with pytest.raises(KvRefused, match="ticket"):
        await ends.sender.push(staging, grant)
    with pytest.raises(Cancelled):
        await push.received()
    staging.release()


# ---- what is late ----------------------------------------------------------------------------------------------------


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


# ---- bounds ----------------------------------------------------------------------------------------------------------


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


# ---- cancellation and closing ----------------------------------------------------------------------------------------


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
