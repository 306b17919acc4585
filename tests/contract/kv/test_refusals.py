"""What is wrong is refused by name, costs one ticket at most, and the receiver stays up."""

import asyncio

import pytest

from shared.errors import Cancelled, KvRefused
from shared.kv.layout import checksum
from shared.kv.wire import OPENING_BYTES, Answer, opening_for
from tests.kv_ends import MIB, Ends, HandSender, refused

SIZE = 2 * MIB + 3


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
