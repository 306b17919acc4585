"""Buffers that are pushed while they grow, over real sockets: whole in the end, or certainly not there."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.config import KvSettings
from shared.errors import DeadlineExceeded, Draining, KvRefused, MalformedMessage, WorkerLost
from shared.kv.arena import Range
from shared.kv.growth import TAIL_BYTES, Growing, Tail
from shared.kv.tickets import Push
from shared.kv.wire import Answer, pack_answer
from shared.messages import KvGrant
from tests.kv_ends import MIB, Ends, HandReceiver, descriptors, refused
from tests.waiting import until

SIZE = 3 * MIB + 5
DEADLINE_S = 20.0


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    before = descriptors()
    ends = await Ends.open("tcp", KvSettings(max_transfers=4))
    yield ends
    await ends.close()
    assert descriptors() == before


class Run:
    """A push of a growing buffer, begun."""

    def __init__(self, ends: Ends, milliseconds: int = 60_000, nbytes: int = SIZE) -> None:
        self.staging: Range = ends.staged(nbytes)
        self.growing = Growing(self.staging)
        self.push: Push
        self.grant: KvGrant
        self.push, self.grant = ends.granted(self.growing.nbytes, milliseconds)
        self.sending = asyncio.create_task(ends.sender.push_growing(self.growing, self.grant), name="growing push")

    async def moved(self, nbytes: int) -> None:
        """Let so much be final, and wait until it is at the receiver."""
        self.growing.grow(nbytes)
        await until(
            lambda: self.push.begun and bytes(self.push.view[:nbytes]) == bytes(self.staging.view[:nbytes]),
            "the bytes are there",
        )

    async def over(self) -> BaseException | None:
        """How the sender's end of it ended."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([self.sending])
        self.staging.release()
        return None if self.sending.cancelled() else self.sending.exception()


async def test_what_is_final_is_over_before_the_rest_is_and_the_tail_comes_last(ends: Ends) -> None:
    run = Run(ends)
    for part in (1, MIB - 1, MIB, 2 * MIB + 7):
        await run.moved(part)
    assert run.growing.early == 0
    run.growing.complete(Tail(123_456, 7))
    received = await run.push.received()
    assert bytes(received.view[:SIZE]) == bytes(run.staging.view)
    assert Tail.parse(received.view[SIZE:]) == (123_456, 7)
    assert await run.over() is None
    assert run.sending.result() == "tcp"
    # what was left to move when the prompt was through: a third instead of the whole
    assert 0.6 < run.growing.early / SIZE < 1
    received.release()
    await ends.crosses()


async def test_what_grows_at_once_arrives_at_once_and_a_later_smaller_word_changes_nothing(ends: Ends) -> None:
    run = Run(ends)
    await run.moved(MIB)
    run.growing.grow(5)
    run.growing.grow(100 * MIB)
    run.growing.complete(Tail(1, 0))
    received = await run.push.received()
    assert bytes(received.view[:SIZE]) == bytes(run.staging.view)
    received.release()
    assert await run.over() is None


@pytest.mark.parametrize("moved", [0, MIB])
async def test_a_growth_that_stops_is_refused_at_the_receiver_and_frees_both_ends(ends: Ends, moved: int) -> None:
    run = Run(ends)
    if moved:
        await run.moved(moved)
    else:
        await until(lambda: run.push.begun, "it has begun")
    run.growing.stop()
    await refused(run.push, "length")
    assert isinstance(await run.over(), WorkerLost)
    assert run.growing.stopped
    assert ends.receiver.expected == 0
    await ends.crosses()


async def test_stopping_what_is_complete_does_nothing(ends: Ends) -> None:
    run = Run(ends)
    run.growing.complete(Tail(1, 0))
    run.growing.stop()
    assert not run.growing.stopped
    received = await run.push.received()
    received.release()
    assert await run.over() is None


async def test_a_receiver_that_wants_it_no_more_is_noticed_with_the_next_bytes(ends: Ends) -> None:
    run = Run(ends)
    await run.moved(MIB)
    run.push.cancel()
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is free")
    run.growing.complete(Tail(1, 0))
    assert isinstance(await run.over(), WorkerLost | KvRefused)
    await ends.crosses()


async def test_a_prompt_that_takes_too_long_ends_its_push_at_the_deadline(ends: Ends) -> None:
    run = Run(ends, milliseconds=400)
    run.growing.grow(MIB)
    assert isinstance(await run.over(), DeadlineExceeded | WorkerLost)
    with pytest.raises((DeadlineExceeded, KvRefused)):
        await run.push.received()
    await ends.crosses()


async def test_a_cancelled_push_reads_the_buffer_no_more(ends: Ends) -> None:
    run = Run(ends)
    await run.moved(MIB)
    run.sending.cancel()
    assert await run.over() is None
    await refused(run.push, "length")
    await ends.crosses()


async def test_a_sender_that_closes_cuts_what_grows(ends: Ends) -> None:
    run = Run(ends)
    await run.moved(MIB)
    await ends.sender.close()
    assert isinstance(await run.over(), Draining)
    await refused(run.push, "length")


async def test_half_of_the_threads_are_left_for_whole_buffers(ends: Ends) -> None:
    runs = []
    for _ in range(2):
        assert ends.sender.may_grow
        runs.append(Run(ends, nbytes=MIB))
        await runs[-1].moved(10)
    assert not ends.sender.may_grow
    await ends.crosses()
    for run in runs:
        run.growing.complete(Tail(0, 0))
        received = await run.push.received()
        received.release()
        assert await run.over() is None
    assert ends.sender.may_grow


async def test_a_receiver_that_can_only_be_reached_by_shared_memory_gets_it_whole_later(ends: Ends) -> None:
    other = await Ends.open("shm", KvSettings(max_transfers=4))
    staging = other.staged(MIB)
    growing = Growing(staging)
    push, grant = other.granted(growing.nbytes)
    growing.complete(Tail(1, 0))
    with pytest.raises(WorkerLost):
        await other.sender.push_growing(growing, grant)
    assert not push.begun
    push.cancel()
    staging.release()
    await other.close()


async def test_a_growing_push_whose_checksum_is_doubted_is_refused(ends: Ends) -> None:
    liar = HandReceiver("tcp")
    staging = ends.staged(MIB)
    growing = Growing(staging)
    growing.complete(Tail(1, 0))
    playing = asyncio.create_task(
        liar.play(pack_answer(Answer.GO), pack_answer(Answer.CHECKSUM)), name="receiver by hand"
    )
    with pytest.raises(KvRefused):
        await ends.sender.push_growing(growing, liar.grant())
    playing.cancel()
    await asyncio.wait([playing])
    liar.hang_up()
    staging.release()


def test_a_tail_is_read_as_it_was_written_and_nothing_else_is_one() -> None:
    tail = Tail(2**32 - 1, 12)
    assert Tail.parse(tail.pack()) == tail
    assert len(tail.pack()) == TAIL_BYTES
    for data in (b"", tail.pack()[:-1], tail.pack() + b"\0", bytes(TAIL_BYTES)):
        with pytest.raises(MalformedMessage):
            Tail.parse(data)
