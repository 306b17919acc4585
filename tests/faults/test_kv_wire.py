"""A KV push over a line that flips bits, ends early, dribbles or answers no more: the real sender, the real receiver.

Either both ends agree that the buffer arrived, and it is the one that was sent, or the sender has an error and nothing
that differs from what was sent is ever handed out.
"""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from shared.config import KvSettings
from shared.errors import BatonError, DeadlineExceeded, KvRefused, WorkerLost
from shared.kv import sender
from shared.kv.arena import Range
from shared.kv.layout import CHECKSUM_BYTES, CHUNK_BYTES, checksum
from shared.kv.tickets import Push
from shared.kv.wire import ANSWER_BYTES, OPENING_BYTES, Answer
from shared.messages import Endpoint, KvGrant
from tests.faults.wire import Wire
from tests.kv_ends import Ends, HandSender
from tests.waiting import until

SIZE = 3 * CHUNK_BYTES + 17
END = OPENING_BYTES + SIZE + CHECKSUM_BYTES


class Hurt:
    """A sender and a receiver with a wire between them."""

    def __init__(self, ends: Ends, wire: Wire) -> None:
        self.ends, self.wire = ends, wire

    def granted(self, milliseconds: int = 60_000, nbytes: int = SIZE) -> tuple[Push, KvGrant]:
        push, grant = self.ends.granted(nbytes, milliseconds)
        endpoints = [Endpoint("tcp", f"127.0.0.1:{self.wire.port}")]
        fields = (grant.request_id, grant.attempt, grant.instance, grant.epoch, grant.ticket)
        return push, KvGrant(*fields, endpoints, grant.deadline_ms)

    async def attempt(self, staging: Range, milliseconds: int = 60_000) -> tuple[BatonError | None, Range | None]:
        """One push: what the sender was told, and what the receiver handed out."""
        push, grant = self.granted(milliseconds)
        waiting = asyncio.create_task(push.received())
        error: BatonError | None = None
        try:
            await self.ends.sender.push(staging, grant)
        except BatonError as raised:
            error = raised
            await asyncio.wait([waiting], timeout=0.05)
            push.cancel()  # what decode does when prefill withdraws
        received = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert isinstance(received, Range | BatonError), received
        return error, received if isinstance(received, Range) else None

    async def fine(self) -> None:
        """Over a healed wire the next push arrives, whole, and nothing is held."""
        await self.wire.heal()
        await until(lambda: self.ends.receiving.in_use == 0, "the receiver's staging is released")
        assert self.ends.receiver.expected == 0
        staging = self.ends.staged(SIZE)
        error, received = await self.attempt(staging)
        assert error is None
        assert received is not None
        assert bytes(received.view) == bytes(staging.view)
        received.release()
        staging.release()


@pytest.fixture
async def hurt() -> AsyncIterator[Hurt]:
    ends = await Ends.open("tcp", KvSettings(max_transfers=4))
    port = int(ends.endpoint.address.rpartition(":")[2])
    async with Wire(port, seed=5) as wire:
        hurt = Hurt(ends, wire)
        yield hurt
        await hurt.fine()
        await ends.close()


PLACES = {
    "magic": 1,
    "version": 5,
    "ticket": 12,
    "mark": 30,
    "length": 47,
    "offset": 55,
    "first byte": OPENING_BYTES,
    "end of a chunk": OPENING_BYTES + CHUNK_BYTES - 1,
    "last byte": OPENING_BYTES + SIZE - 1,
    "checksum": END - 1,
}


@pytest.mark.parametrize("place", PLACES)
async def test_one_flipped_bit_on_the_way_up_is_refused_by_name(hurt: Hurt, place: str) -> None:
    staging = hurt.ends.staged(SIZE)
    hurt.wire.up.flip_at = (PLACES[place],)
    error, received = await hurt.attempt(staging)
    assert hurt.wire.up.flipped == 1
    assert isinstance(error, KvRefused)
    assert received is None
    staging.release()


@pytest.mark.parametrize("place", range(2 * ANSWER_BYTES))
async def test_one_flipped_bit_of_an_answer_never_turns_a_refusal_into_an_arrival(hurt: Hurt, place: int) -> None:
    staging = hurt.ends.staged(SIZE)
    hurt.wire.down.flip_at = (place,)
    error, received = await hurt.attempt(staging)
    assert isinstance(error, KvRefused | WorkerLost)  # the sender knows no better: it must ask before it goes elsewhere
    if received is not None:  # the second answer said what it said, and nobody understood it
        assert place >= ANSWER_BYTES
        assert bytes(received.view) == bytes(staging.view)
        received.release()
    staging.release()


async def test_bits_flipped_at_random_are_never_handed_out(hurt: Hurt) -> None:
    staging = hurt.ends.staged(SIZE)
    hurt.wire.up.flip_rate = 0.4 / SIZE
    arrived = 0
    for _ in range(40):
        before = hurt.wire.up.flipped
        error, received = await hurt.attempt(staging)
        hit = hurt.wire.up.flipped > before
        assert (received is None) == (error is not None) == hit
        if received is not None:
            assert bytes(received.view) == bytes(staging.view)
            received.release()
            arrived += 1
    assert 5 < arrived < 38
    staging.release()


@pytest.mark.parametrize("ending", ["close_after", "reset_after"])
@pytest.mark.parametrize("nbytes", [0, 10, OPENING_BYTES, OPENING_BYTES + 1, OPENING_BYTES + CHUNK_BYTES, END - 1])
async def test_a_push_that_ends_early_is_a_lost_worker_and_no_buffer(hurt: Hurt, ending: str, nbytes: int) -> None:
    staging = hurt.ends.staged(SIZE)
    setattr(hurt.wire.up, ending, nbytes)
    error, received = await hurt.attempt(staging)
    assert isinstance(error, WorkerLost)
    assert received is None
    staging.release()


@pytest.mark.parametrize("nbytes", [0, 3, ANSWER_BYTES, ANSWER_BYTES + 3])
async def test_answers_that_end_early_leave_the_sender_in_doubt_and_the_buffer_whole(hurt: Hurt, nbytes: int) -> None:
    staging = hurt.ends.staged(SIZE)
    hurt.wire.down.reset_after = nbytes
    error, received = await hurt.attempt(staging)
    assert isinstance(error, WorkerLost)
    if received is not None:
        assert bytes(received.view) == bytes(staging.view)
        received.release()
    staging.release()


async def test_an_arrival_whose_word_is_lost_is_whole_and_its_ticket_is_used(hurt: Hurt) -> None:
    staging = hurt.ends.staged(SIZE)
    push, grant = hurt.granted()
    hurt.wire.down.close_after = ANSWER_BYTES
    with pytest.raises(WorkerLost):
        await hurt.ends.sender.push(staging, grant)
    received = await push.received()
    assert bytes(received.view) == bytes(staging.view)
    await hurt.wire.heal()
    with pytest.raises(KvRefused, match="ticket"):
        await hurt.ends.sender.push(staging, grant)
    received.release()
    staging.release()


async def test_a_push_that_is_said_again_word_for_word_is_refused(hurt: Hurt) -> None:
    staging = hurt.ends.staged(SIZE)
    push, grant = hurt.granted()
    first = await HandSender.connect(hurt.ends)
    assert await first.open(grant, staging) is Answer.GO
    await first.payload(staging)
    assert await first.finish(checksum(staging.view)) is Answer.DONE
    again = await HandSender.connect(hurt.ends)
    assert await again.open(grant, staging) is Answer.TICKET
    received = await push.received()
    assert bytes(received.view) == bytes(staging.view)
    received.release()
    staging.release()
    first.close()
    again.close()


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 0, 2, 3), (0, 2, 1, 3)], ids=["swapped", "doubled", "late"])
async def test_chunks_in_another_order_than_they_were_hashed_are_refused(hurt: Hurt, order: tuple[int, ...]) -> None:
    staging = hurt.ends.staged(SIZE)
    push, grant = hurt.granted()
    peer = await HandSender.connect(hurt.ends)
    assert await peer.open(grant, staging) is Answer.GO
    for chunk in order:
        await peer.send(staging.view[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
    assert await peer.finish(checksum(staging.view)) is Answer.CHECKSUM
    with pytest.raises(KvRefused) as raised:
        await push.received()
    assert raised.value.reason == "checksum"
    staging.release()
    peer.close()


async def test_a_missing_chunk_is_never_made_up_for(hurt: Hurt) -> None:
    staging = hurt.ends.staged(SIZE)
    push, grant = hurt.granted(400)
    peer = await HandSender.connect(hurt.ends)
    assert await peer.open(grant, staging) is Answer.GO
    for chunk in (0, 1, 3):
        await peer.send(staging.view[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
    await peer.send(checksum(staging.view))
    with pytest.raises(DeadlineExceeded):
        await push.received()
    staging.release()
    peer.close()


@pytest.mark.parametrize("direction", ["up", "down", "both"])
async def test_a_line_that_falls_silent_ends_the_push_at_its_deadline(hurt: Hurt, direction: str) -> None:
    staging = hurt.ends.staged(SIZE)
    if direction != "down":
        hurt.wire.up.hold()
    if direction != "up":
        hurt.wire.down.hold()
    error, received = await hurt.attempt(staging, 300)
    assert isinstance(error, DeadlineExceeded)
    if received is not None:
        received.release()
    staging.release()


@pytest.mark.parametrize("kept", [False, True])
async def test_a_receiver_that_does_not_answer_is_given_up_long_before_the_deadline(
    hurt: Hurt, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    if kept:
        await hurt.fine()
    monkeypatch.setattr(sender, "CONNECT_S", 0.2)
    staging = hurt.ends.staged(SIZE)
    hurt.wire.down.hold()
    error, received = await hurt.attempt(staging)
    assert isinstance(error, WorkerLost)
    assert received is None
    staging.release()


async def test_a_line_that_is_cut_mid_push_is_a_lost_worker_at_once(hurt: Hurt) -> None:
    staging = hurt.ends.staged(SIZE)
    hurt.wire.up.bytes_per_s = 20e6
    pushing = asyncio.create_task(hurt.attempt(staging))
    await until(lambda: hurt.wire.up.passed > CHUNK_BYTES, "it is under way")
    await hurt.wire.cut()
    error, received = await pushing
    assert isinstance(error, WorkerLost)
    assert received is None
    staging.release()


async def test_a_narrow_slow_line_of_small_slices_brings_the_buffer_whole(hurt: Hurt) -> None:
    staging = hurt.ends.staged(SIZE)
    random = Random(1)  # noqa: S311  # not a secret
    hurt.wire.up.delay_s, hurt.wire.up.jitter_s = 0.005, 0.005
    hurt.wire.up.slice_bytes = random.randrange(1000, 3000)
    hurt.wire.down.slice_bytes = 1
    error, received = await hurt.attempt(staging)
    assert error is None
    assert received is not None
    assert bytes(received.view) == bytes(staging.view)
    received.release()
    staging.release()
