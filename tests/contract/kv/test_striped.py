"""A payload in parts over several connections: all of it arrives or nothing does, and only the ticket lets one join."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from shared.config import KvSettings
from shared.errors import Cancelled, DeadlineExceeded, KvRefused, WorkerLost
from shared.kv import stripes, tcp
from shared.kv.layout import checksum
from shared.kv.link import Link
from shared.kv.sender import Sender
from shared.kv.stripes import number, part
from shared.kv.wire import Answer, Kind
from tests.kv_ends import MIB, Ends, HandSender, descriptors, refused
from tests.waiting import until

PARTS = 3
SIZE = 4 * MIB + 5


@pytest.fixture
async def ends(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ends]:
    monkeypatch.setattr(stripes, "LEAST_BYTES", MIB)
    before = descriptors()
    ends = await Ends.open("tcp", KvSettings(max_transfers=4, tcp_connections=PARTS))
    yield ends
    await ends.close()
    assert descriptors() == before


@pytest.fixture
async def peers(ends: Ends) -> AsyncIterator[list[HandSender]]:
    """Connections by hand; after what they did an ordinary push must still arrive and no staging be held."""
    peers = [await HandSender.connect(ends) for _ in range(PARTS)]
    yield peers
    for peer in peers:
        peer.close()
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is released")
    assert ends.receiver.expected == 0
    await ends.crosses(SIZE)


@pytest.mark.parametrize("nbytes", [1, MIB, 3 * MIB, SIZE, 7 * MIB + 1])
@pytest.mark.parametrize("parts", [1, 2, 3, 16])
def test_the_parts_of_a_payload_cover_it_once(nbytes: int, parts: int) -> None:
    ranges = [part(nbytes, parts, index) for index in range(parts)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == nbytes
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))


def test_a_payload_goes_over_as_many_connections_as_both_ends_take_and_its_size_is_worth() -> None:
    least = stripes.LEAST_BYTES
    assert [number(size * least, 4, 8) for size in (0, 1, 2, 3, 9)] == [1, 1, 2, 3, 4]
    assert number(9 * least, 8, 1) == 1


async def test_a_large_buffer_comes_whole_over_several_connections_which_are_kept(ends: Ends) -> None:
    assert ends.endpoint.connections == PARTS
    for _ in range(3):
        await ends.crosses(SIZE)
        assert ends.sender.links == PARTS


async def test_a_small_buffer_goes_over_one(ends: Ends) -> None:
    await ends.crosses(2 * MIB - 1)
    assert ends.sender.links == 1


async def test_a_receiver_that_says_nothing_of_connections_is_sent_no_parts(ends: Ends) -> None:
    ends.endpoint = structs.replace(ends.endpoint, connections=1)
    await ends.crosses(SIZE)
    assert ends.sender.links == 1


async def test_a_sender_that_knows_of_one_connection_is_served(ends: Ends) -> None:
    await ends.sender.close()
    ends.sender = Sender(ends.sending, KvSettings(max_transfers=4, tcp_connections=1))
    await ends.crosses(SIZE)
    assert ends.sender.links == 1


async def test_as_many_pushes_as_are_allowed_go_in_parts_at_once(ends: Ends) -> None:
    staging = [ends.staged(3 * MIB, bytes([index])) for index in range(4)]
    granted = [ends.granted(3 * MIB) for _ in staging]
    await asyncio.gather(*(ends.sender.push(one, grant) for one, (_, grant) in zip(staging, granted, strict=True)))
    for one, (push, _) in zip(staging, granted, strict=True):
        received = await push.received()
        assert received.view == one.view
        received.release()
        one.release()


async def test_kept_connections_that_died_unnoticed_are_replaced(ends: Ends) -> None:
    await ends.crosses(SIZE)
    for link in list(ends.sender._pool._idle):
        link.unwatch()
        link._sock.shutdown(socket.SHUT_RDWR)
    await ends.crosses(SIZE)


# ---- by hand ---------------------------------------------------------------------------------------------------------


async def test_parts_by_hand_arrive_whatever_their_order(ends: Ends, peers: list[HandSender]) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peers[0].open(grant, staging, kind=Kind.STRIPED, offset=PARTS) is Answer.GO
    for index in (2, 1, 0):
        if index:
            assert await peers[index].open(grant, staging, kind=Kind.STRIPE, offset=index) is Answer.GO
        start, stop = part(SIZE, PARTS, index)
        await peers[index].send(staging.view[start:stop])
        assert await peers[index].finish(checksum(staging.view[start:stop])) is Answer.DONE
    received = await push.received()
    assert received.view == staging.view
    received.release()
    staging.release()


@pytest.mark.parametrize("wrong", [0, 1])
async def test_one_flipped_bit_in_any_part_is_refused(ends: Ends, peers: list[HandSender], wrong: int) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peers[0].open(grant, staging, kind=Kind.STRIPED, offset=2) is Answer.GO
    assert await peers[1].open(grant, staging, kind=Kind.STRIPE, offset=1) is Answer.GO
    digests = [checksum(staging.view[slice(*part(SIZE, 2, index))]) for index in (0, 1)]
    staging.view[part(SIZE, 2, wrong)[0] + 7] ^= 1
    await peers[wrong].send(staging.view[slice(*part(SIZE, 2, wrong))])
    assert await peers[wrong].finish(digests[wrong]) is Answer.CHECKSUM
    await refused(push, "checksum")
    staging.release()


async def test_a_part_without_a_push_a_foreign_one_and_a_second_one_are_refused(
    ends: Ends, peers: list[HandSender]
) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peers[1].open(grant, staging, kind=Kind.STRIPE, offset=1) is Answer.TICKET
    assert await peers[0].open(grant, staging, kind=Kind.STRIPED, offset=2) is Answer.GO
    hostile: list[dict[str, object]] = [
        {"ticket": bytes(16)},
        {"request": bytes(16)},
        {"offset": 0},
        {"offset": 2},
        {"offset": 2**64 - 1},
        {"length": SIZE + 1},
    ]
    for changed in hostile:
        other = await HandSender.connect(ends)
        answer = await other.open(grant, staging, **({"kind": Kind.STRIPE, "offset": 1} | changed))
        assert answer is (Answer.LENGTH if "length" in changed else Answer.TICKET)
        other.close()
    assert await peers[2].open(grant, staging, kind=Kind.STRIPE, offset=1) is Answer.GO
    again = await HandSender.connect(ends)
    assert await again.open(grant, staging, kind=Kind.STRIPE, offset=1) is Answer.TICKET
    again.close()
    push.cancel()
    with pytest.raises(Cancelled):
        await push.received()
    staging.release()


@pytest.mark.parametrize("parts", [0, 1, PARTS + 1, 2**64 - 1])
async def test_more_parts_than_were_offered_are_malformed_and_cost_no_ticket(
    ends: Ends, peers: list[HandSender], parts: int
) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peers[0].open(grant, staging, kind=Kind.STRIPED, offset=parts) is Answer.MALFORMED
    await ends.sender.push(staging, grant)
    (await push.received()).release()
    staging.release()


async def test_a_part_that_never_comes_ends_the_push_at_its_deadline(ends: Ends, peers: list[HandSender]) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE, milliseconds=300)
    assert await peers[0].open(grant, staging, kind=Kind.STRIPED, offset=2) is Answer.GO
    half = staging.view[slice(*part(SIZE, 2, 0))]
    await peers[0].send(half)
    await peers[0].send(checksum(half))
    with pytest.raises(DeadlineExceeded):
        await push.received()
    assert await peers[0].answer() is None
    staging.release()


@pytest.mark.parametrize("leaving", [0, 1])
async def test_whichever_connection_is_lost_the_push_is_over_at_once(
    ends: Ends, peers: list[HandSender], leaving: int
) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await peers[0].open(grant, staging, kind=Kind.STRIPED, offset=PARTS) is Answer.GO
    assert await peers[1].open(grant, staging, kind=Kind.STRIPE, offset=1) is Answer.GO
    first = staging.view[slice(*part(SIZE, PARTS, 0))]
    await peers[0].send(first)
    await peers[0].send(checksum(first))  # the first part is here; the second comes, the third does not
    peers[leaving].close()
    await refused(push, "length")
    assert await peers[1 - leaving].answer() is None
    staging.release()


# ---- an honest sender ------------------------------------------------------------------------------------------------


async def test_a_sender_learns_that_one_part_was_spoilt(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    honest, start = tcp.send, part(SIZE, PARTS, 1)[0]

    def spoilt(link: Link, view: memoryview) -> bytes:
        digest = honest(link, view)
        return bytes(16) if view[0] else digest

    staging.view[:] = bytes(SIZE)
    staging.view[start] = 1
    monkeypatch.setattr(tcp, "send", spoilt)
    with pytest.raises(KvRefused, match="bytes that arrived"):
        await ends.sender.push(staging, grant)
    monkeypatch.setattr(tcp, "send", honest)
    await refused(push, "checksum")
    staging.release()


async def test_a_further_connection_that_cannot_be_made_ends_the_push(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    made = 0
    connect = tcp.connect

    async def once(address: str) -> Link:
        nonlocal made
        made += 1
        if made > 1:
            raise ConnectionRefusedError("no more")
        return await connect(address)

    monkeypatch.setattr(tcp, "connect", once)
    with pytest.raises(WorkerLost, match="no more"):
        await ends.sender.push(staging, grant)
    monkeypatch.setattr(tcp, "connect", connect)
    await refused(push, "length")
    staging.release()


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.01])
async def test_a_push_in_parts_that_is_given_up_leaves_nothing_at_either_end(ends: Ends, after_s: float) -> None:
    staging = ends.staged(12 * MIB)
    push, grant = ends.granted(12 * MIB)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    await asyncio.sleep(after_s)
    pushing.cancel()
    await asyncio.wait([pushing])
    assert not ends.sender._moving
    staging.release()
    push.cancel()
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is released")
    await ends.crosses(SIZE)
