"""A write that nobody can cut never reaches a range that somebody else has been given."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from shared.errors import BatonError, Cancelled, DeadlineExceeded, Draining, KvRefused, Overloaded
from shared.kv import mooncake_receiver, mooncake_sender
from shared.kv.arena import Arena, Range
from shared.kv.mooncake import Place
from shared.kv.mooncake_receiver import MARK_BYTES
from shared.kv.tickets import Push
from shared.kv.wire import WORD_BYTES, Outcome, parse_word
from shared.messages import Endpoint, KvGrant
from tests.kv_ends import MIB, Ends, HandReceiver, in_ms
from tests.kv_mooncake import GRACE_S, ROOM, SIZE, Fabric, Written, both_ends, installed
from tests.waiting import until

LARGE = ROOM - MIB
"""A second one does not fit."""
LONG_S = 600.0


@pytest.fixture
def fabric(monkeypatch: pytest.MonkeyPatch) -> Fabric:
    fabric = installed(monkeypatch)
    fabric.holds = True
    return fabric


@pytest.fixture
def grace_s(request: pytest.FixtureRequest) -> float:
    return float(getattr(request, "param", LONG_S))


@pytest.fixture
async def ends(fabric: Fabric, grace_s: float) -> AsyncIterator[Ends]:
    ends = await both_ends(mooncake_grace_s=grace_s)
    yield ends
    for write in fabric.writes:
        write.end()
    await ends.close()


class Moving:
    """A push whose write has begun."""

    def __init__(self, staging: Range, push: Push, pushing: "asyncio.Task[str]", write: Written) -> None:
        self.staging, self.push, self.pushing, self.write = staging, push, pushing, write


async def begun(ends: Ends, fabric: Fabric, milliseconds: int = 60_000) -> Moving:
    staging = ends.staged(LARGE)
    push, grant = ends.granted(LARGE, milliseconds)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    count = len(fabric.writes)
    await until(lambda: len(fabric.writes) > count, "the write begins")
    return Moving(staging, push, pushing, fabric.writes[-1])


def no_room(arena: Arena) -> bool:
    try:
        arena.reserve(LARGE).release()
    except Overloaded:
        return True
    return False


async def ending(work: "asyncio.Task[str]") -> BaseException | None:
    with suppress(asyncio.CancelledError, BatonError):
        await asyncio.wait_for(asyncio.shield(work), 5)
    return None if work.cancelled() else work.exception()


async def test_a_cancelled_push_ends_at_once_and_both_ranges_are_kept_until_its_write_is_over(
    ends: Ends, fabric: Fabric
) -> None:
    moving = await begun(ends, fabric)
    moving.pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving.pushing
    moving.staging.release()
    assert no_room(ends.sending), "the engine still reads it"
    moving.write.land(0, MIB)
    await asyncio.sleep(0.05)
    assert no_room(ends.receiving), "the rest may still come"
    moving.write.land()
    moving.write.end()
    with pytest.raises(KvRefused):
        await moving.push.received()
    await until(lambda: not no_room(ends.sending) and not no_room(ends.receiving), "both are free, without the grace")


async def test_a_push_that_is_cancelled_before_it_knows_where_to_write_says_so(ends: Ends, fabric: Fabric) -> None:
    place = Place.parse(ends.endpoint.address)
    assert place is not None
    silent = HandReceiver("tcp")
    endpoint = Endpoint("mooncake", f"tcp://{silent.endpoint.address}/{place.segment}")
    grant = KvGrant("request", 0, "silent", (1, 1), bytes(16), [endpoint], in_ms(60_000))
    playing = asyncio.create_task(silent.play())
    staging = ends.staged(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    await silent.began.wait()
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert silent._link is not None
    assert parse_word(await silent._link.read(WORD_BYTES, first_s=5))[0] is Outcome.NEVER
    playing.cancel()
    silent.hang_up()
    staging.release()
    assert ends.sending.in_use == 0


async def test_an_overdue_push_fails_in_time_at_both_ends_while_its_ranges_are_kept(ends: Ends, fabric: Fabric) -> None:
    moving = await begun(ends, fabric, milliseconds=300)
    with pytest.raises(DeadlineExceeded):
        await moving.push.received()
    assert isinstance(await ending(moving.pushing), DeadlineExceeded)
    moving.staging.release()
    assert no_room(ends.sending)
    assert no_room(ends.receiving)
    with pytest.raises(Overloaded):
        ends.receiver.expect("next#0", LARGE, in_ms(1000))
    moving.write.land()
    moving.write.end()
    await until(lambda: not no_room(ends.sending) and not no_room(ends.receiving), "both are free, without the grace")
    fabric.holds = False
    await ends.crosses(LARGE)


async def test_a_push_that_decode_gives_up_fails_at_once_and_its_range_is_kept(ends: Ends, fabric: Fabric) -> None:
    moving = await begun(ends, fabric)
    moving.push.cancel()
    with pytest.raises(Cancelled):
        await moving.push.received()
    assert no_room(ends.receiving)
    assert ends.receiver.expected == 1
    moving.write.land()
    moving.write.end()
    error = await ending(moving.pushing)
    assert isinstance(error, KvRefused)
    assert error.reason == "ticket"
    assert not no_room(ends.receiving)
    assert ends.receiver.expected == 0
    moving.staging.release()


@pytest.mark.parametrize("grace_s", [GRACE_S], indirect=True)
async def test_what_a_sender_that_is_gone_was_writing_is_kept_for_the_grace(ends: Ends, fabric: Fabric) -> None:
    moving = await begun(ends, fabric)
    assert ends.sender._writes is not None
    for write in ends.sender._writes._writes:
        write.link.cut()  # what others see of a killed process
    before = asyncio.get_running_loop().time()
    with pytest.raises(KvRefused, match="broke off"):
        await moving.push.received()
    assert asyncio.get_running_loop().time() - before < GRACE_S
    assert no_room(ends.receiving)
    moving.write.land()  # late, and into nobody's memory
    await until(lambda: not no_room(ends.receiving), "the range is free after the grace")
    assert asyncio.get_running_loop().time() - before >= GRACE_S
    moving.write.end()
    assert await ending(moving.pushing) is not None
    moving.staging.release()


async def test_a_write_that_is_called_done_too_early_is_waited_for(ends: Ends, fabric: Fabric) -> None:
    for _ in range(2):  # into the same range: what the first one left is no proof of the second
        staging = ends.staged(SIZE, b"k")
        push, grant = ends.granted(SIZE)
        count = len(fabric.writes)
        pushing = asyncio.create_task(ends.sender.push(staging, grant))
        await until(lambda count=count: len(fabric.writes) > count, "the write begins")  # type: ignore[misc]
        fabric.writes[-1].land(0, SIZE - MARK_BYTES)
        fabric.writes[-1].end()
        await asyncio.sleep(0.1)
        assert not pushing.done()
        fabric.writes[-1].land(SIZE - MARK_BYTES)
        assert await pushing == "mooncake"
        (await push.received()).release()
        staging.release()


async def test_writes_that_hang_take_the_room_of_others_and_these_go_another_way(
    ends: Ends, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = await begun(ends, fabric)
    assert ends.sender._writes is not None
    assert ends.sender._writes.usable(ends.endpoint)
    moving.pushing.cancel()
    await ending(moving.pushing)
    assert not ends.sender._writes.usable(ends.endpoint), "a write hangs there"
    assert ends.sender._writes.under_way == ends.sender.links == 1
    monkeypatch.setattr(ends.sender._writes, "_limit", 1)
    monkeypatch.setattr(ends.sender._writes, "usable", lambda _: True)
    moving.staging.release()
    small, (push, grant) = ends.staged(100), ends.granted(100)
    grant.endpoints.append(next(one for one in ends.receiver.endpoints if one.transport == "tcp"))
    assert await ends.sender.push(small, grant) == "tcp"
    (await push.received()).release()
    small.release()


async def test_a_sender_that_closes_ends_its_engine_before_it_lets_go_of_a_range(ends: Ends, fabric: Fabric) -> None:
    moving = await begun(ends, fabric)
    moving.staging.release()
    closing = asyncio.create_task(ends.sender.close())
    assert isinstance(await ending(moving.pushing), Draining)
    await closing
    assert len(fabric.engines) == 1, "the receiver's"
    assert not no_room(ends.sending)
    with pytest.raises(KvRefused):
        await moving.push.received()
    assert no_room(ends.receiving)


async def test_a_call_that_does_not_come_back_holds_up_no_close_and_keeps_its_range(
    ends: Ends, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mooncake_sender, "CLOSE_S", 0.2)
    fabric.gate.clear()
    staging = ends.staged(LARGE)
    _, grant = ends.granted(LARGE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    writes = ends.sender._writes
    assert writes is not None
    await until(lambda: writes.under_way == 1, "the write is about to begin")
    await asyncio.wait_for(ends.sender.close(), 10)
    assert isinstance(await ending(pushing), Draining)
    staging.release()
    assert no_room(ends.sending), "the engine may read it yet"
    fabric.begins = False
    fabric.gate.set()
    for write in list(writes._writes):
        writes._over(write)


async def test_a_receiver_that_closes_ends_its_engine_before_it_lets_go_of_a_range(ends: Ends, fabric: Fabric) -> None:
    moving = await begun(ends, fabric)
    await ends.receiver.close()
    assert len(fabric.engines) == 1, "the sender's"
    with pytest.raises(Draining):
        await moving.push.received()
    assert ends.receiving.in_use == 0
    moving.write.end(-1)
    assert await ending(moving.pushing) is not None
    moving.staging.release()


async def test_a_sender_whose_machine_falls_silent_is_taken_for_gone(
    ends: Ends, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr("shared.kv.link.Link.keep_alive", lambda _, seconds: kept.append(seconds))
    moving = await begun(ends, fabric)
    assert kept == [mooncake_receiver.SILENT_S]
    moving.write.land()
    moving.write.end()
    await moving.pushing
    (await moving.push.received()).release()
    moving.staging.release()


def test_a_pinned_range_is_nobody_elses_until_the_last_pin_is_gone() -> None:
    arena = Arena(2 * MIB)
    first = arena.reserve(MIB)
    first.pin()
    first.pin()
    first.release()
    first.unpin()
    assert arena.in_use == MIB
    assert arena.reserve(MIB).offset == MIB
    first.unpin()
    assert arena.reserve(MIB).offset == 0
    other = Arena(MIB).reserve(MIB)
    other.pin()
    other.unpin()
    assert other.arena.in_use == MIB, "held until its release"
    other.release()
    assert other.arena.in_use == 0
