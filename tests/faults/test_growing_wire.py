"""A buffer that is pushed while it grows, over a line that flips bits or ends: whole with its token, or not there."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.config import KvSettings
from shared.errors import BatonError, KvRefused, WorkerLost
from shared.kv.arena import Range
from shared.kv.growth import Growing, Tail
from shared.kv.layout import CHUNK_BYTES
from shared.kv.wire import OPENING_BYTES
from tests.faults.test_kv_wire import END, SIZE, Hurt
from tests.faults.wire import Wire
from tests.kv_ends import Ends
from tests.waiting import until


@pytest.fixture
async def hurt() -> AsyncIterator[Hurt]:
    ends = await Ends.open("tcp", KvSettings(max_transfers=4))
    async with Wire(int(ends.endpoint.address.rpartition(":")[2]), seed=5) as wire:
        hurt = Hurt(ends, wire)
        yield hurt
        await hurt.fine()
        await ends.close()


async def grown(hurt: Hurt, staging: Range) -> tuple[BatonError | None, Range | None]:
    """One push in two parts: what the sender was told, and what the receiver handed out."""
    growing = Growing(staging)
    push, grant = hurt.granted(nbytes=growing.nbytes)
    waiting = asyncio.create_task(push.received())
    sending = asyncio.create_task(hurt.ends.sender.push_growing(growing, grant))
    growing.grow(CHUNK_BYTES)
    await until(lambda: push.begun or sending.done(), "it has begun")
    growing.complete(Tail(7, 0))
    (told,) = await asyncio.gather(sending, return_exceptions=True)
    if isinstance(told, BatonError):
        await asyncio.wait([waiting], timeout=0.05)
        push.cancel()
    received = (await asyncio.gather(waiting, return_exceptions=True))[0]
    return told if isinstance(told, BatonError) else None, received if isinstance(received, Range) else None


@pytest.mark.parametrize("place", [OPENING_BYTES, OPENING_BYTES + SIZE - 1, OPENING_BYTES + SIZE + 5, END + 3])
async def test_one_flipped_bit_of_a_growing_buffer_or_of_its_token_is_refused(hurt: Hurt, place: int) -> None:
    staging = hurt.ends.staged(SIZE)
    hurt.wire.up.flip_at = (place,)
    error, received = await grown(hurt, staging)
    assert hurt.wire.up.flipped == 1
    assert isinstance(error, KvRefused)
    assert received is None
    staging.release()


@pytest.mark.parametrize("nbytes", [OPENING_BYTES + 1, OPENING_BYTES + CHUNK_BYTES, OPENING_BYTES + SIZE + 3, END])
async def test_a_growing_push_that_ends_early_is_a_lost_worker_and_no_buffer(hurt: Hurt, nbytes: int) -> None:
    staging = hurt.ends.staged(SIZE)
    hurt.wire.up.reset_after = nbytes
    error, received = await grown(hurt, staging)
    assert isinstance(error, WorkerLost)
    assert received is None
    staging.release()
