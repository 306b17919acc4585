"""Pushes by Mooncake: which way is taken, what is refused, how a write that goes wrong ends."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import KvSettings
from shared.errors import ConfigError, KvRefused, MalformedMessage, WorkerLost
from shared.kv.arena import Arena
from shared.kv.layout import checksum
from shared.kv.mooncake import Mooncake, Place
from shared.kv.wire import ADDRESS_BYTES, WORD_BYTES, Answer, Kind, Outcome, pack_word, parse_address, parse_word
from shared.messages import KvGrant
from tests.kv_ends import Ends, HandSender, descriptors, refused
from tests.kv_mooncake import SIZE, Fabric, both_ends, installed, settings
from tests.waiting import until


@pytest.fixture
def fabric(monkeypatch: pytest.MonkeyPatch) -> Fabric:
    return installed(monkeypatch)


@pytest.fixture
async def ends(fabric: Fabric) -> AsyncIterator[Ends]:
    before = descriptors()
    ends = await both_ends()
    yield ends
    await ends.close()
    assert descriptors() == before
    assert not fabric.engines, "the engines are ended"


def either_way(ends: Ends, grant: KvGrant) -> KvGrant:
    """The same grant with all of the receiver's endpoints."""
    return KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, ends.receiver.endpoints, grant.deadline_ms)


async def goes_by(ends: Ends, transport: str) -> None:
    """An ordinary push that may choose takes this way, and arrives."""
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    assert await ends.sender.push(staging, either_way(ends, grant)) == transport
    received = await push.received()
    assert bytes(received.view) == bytes(staging.view)
    received.release()
    staging.release()


@pytest.mark.parametrize("nbytes", [1, 15, 100, 4096, SIZE])
async def test_a_buffer_of_any_size_crosses(ends: Ends, nbytes: int) -> None:
    await ends.crosses(nbytes)


async def test_connections_are_kept_for_the_next_push(ends: Ends) -> None:
    for _ in range(3):
        await ends.crosses()
    assert ends.sender.links == ends.receiver.links == 1
    both = [ends.granted(SIZE) for _ in range(2)]
    staging = ends.staged(SIZE)
    await asyncio.gather(*(ends.sender.push(staging, grant) for _, grant in both))
    for push, _ in both:
        (await push.received()).release()
    staging.release()
    assert ends.sender.links == ends.receiver.links == 2


async def test_mooncake_is_offered_after_shared_memory_and_before_tcp(fabric: Fabric) -> None:
    ends = await both_ends(shared_memory=True)
    assert [one.transport for one in ends.receiver.endpoints] == ["shm", "mooncake", "tcp"]
    await ends.close()


async def test_a_sender_without_mooncake_or_of_another_protocol_takes_tcp(ends: Ends, fabric: Fabric) -> None:
    for protocol in ("none", "rdma"):
        other = await Ends.open("tcp", settings(mooncake=protocol))
        other.receiver.endpoints = ends.receiver.endpoints
        push, grant = ends.granted(SIZE)
        staging = other.staged(SIZE)
        assert await other.sender.push(staging, either_way(ends, grant)) == "tcp"
        (await push.received()).release()
        staging.release()
        await other.close()
    assert not fabric.writes


async def test_an_engine_that_does_not_answer_is_passed_over(ends: Ends, fabric: Fabric) -> None:
    fabric.answers = False
    await goes_by(ends, "tcp")
    fabric.answers = True
    await goes_by(ends, "mooncake")


async def test_a_failed_write_is_a_lost_worker_and_the_next_push_goes_by_tcp(ends: Ends, fabric: Fabric) -> None:
    fabric.holds = True
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, either_way(ends, grant)))
    await until(lambda: len(fabric.writes) == 1, "the write begins")
    fabric.writes[0].land(0, 1000)
    fabric.writes[0].end(-1)
    with pytest.raises(WorkerLost, match="failed"):
        await pushing
    await refused(push, "length")
    assert ends.receiving.in_use, "the rest may still come"
    staging.release()
    await goes_by(ends, "tcp")


async def test_a_write_that_cannot_begin_costs_a_ticket_and_no_staging(ends: Ends, fabric: Fabric) -> None:
    fabric.begins = False
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    with pytest.raises(WorkerLost):
        await ends.sender.push(staging, either_way(ends, grant))
    await refused(push, "length")
    assert ends.receiving.in_use == 0
    staging.release()


async def test_bytes_that_were_damaged_are_refused_and_their_range_is_kept(ends: Ends, fabric: Fabric) -> None:
    fabric.holds = True
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    await until(lambda: len(fabric.writes) == 1, "the write begins")
    fabric.writes[0].land(0, SIZE - 1)
    fabric.writes[0].end()
    with pytest.raises(KvRefused, match="not the bytes"):
        await pushing
    await refused(push, "checksum")
    assert ends.receiving.in_use
    staging.release()


async def test_a_ticket_is_good_for_one_write_of_its_own_request_and_length(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    await ends.sender.push(staging, grant)
    (await push.received()).release()
    with pytest.raises(KvRefused) as raised:
        await ends.sender.push(staging, grant)
    assert raised.value.reason == "ticket"
    push, grant = ends.granted(SIZE + 1)
    with pytest.raises(KvRefused) as raised:
        await ends.sender.push(staging, grant)
    assert raised.value.reason == "length"
    await refused(push, "length")
    mixed_up, grant = ends.granted(SIZE)
    with pytest.raises(KvRefused):
        await ends.sender.push(staging, KvGrant("x", 0, "d", (1, 1), grant.ticket, [ends.endpoint], grant.deadline_ms))
    await refused(mixed_up, "ticket")
    staging.release()


async def test_a_write_is_told_where_to_go_and_its_word_ends_it(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    for outcome, answer, left in (
        (Outcome.NEVER, Answer.LENGTH, False),
        (Outcome.BROKEN, Answer.LENGTH, True),
        (Outcome.WRITTEN, Answer.CHECKSUM, True),
        (Outcome.UNWANTED, Answer.CHECKSUM, True),
    ):
        push, grant = ends.granted(SIZE)
        peer = await HandSender.connect(ends)
        assert await peer.open(grant, staging) is Answer.GO
        assert parse_address(await peer.link.read(ADDRESS_BYTES)) == ends.receiving.address + ends.receiving.offset_of(
            push.view
        )
        assert await peer.finish(pack_word(outcome, checksum(staging.view))) is answer
        with pytest.raises(KvRefused):
            await push.received()
        assert bool(ends.receiving.in_use) is left
        await until(lambda: ends.receiving.in_use == 0, "the range is released after the grace")
        peer.close()
    staging.release()


async def test_a_word_that_is_none_is_malformed(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    peer = await HandSender.connect(ends)
    assert await peer.open(grant, staging) is Answer.GO
    await peer.link.read(ADDRESS_BYTES)
    assert await peer.finish(b"x" * WORD_BYTES) is Answer.MALFORMED
    await refused(push, "length")
    peer.close()
    staging.release()


async def test_a_receiver_without_mooncake_knows_no_writes() -> None:
    ends = await Ends.open("tcp", KvSettings(max_transfers=4))
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    peer = await HandSender.connect(ends)
    assert await peer.open(grant, staging, kind=Kind.WRITE) is Answer.MALFORMED
    assert push.waiting
    push.cancel()
    peer.close()
    staging.release()
    await ends.close()


@given(st.binary(min_size=WORD_BYTES, max_size=WORD_BYTES))
def test_any_bytes_are_a_word_or_malformed(data: bytes) -> None:
    with suppress(MalformedMessage):  # and nothing else
        parse_word(data)
    assert parse_word(pack_word(Outcome.WRITTEN, data[:16])) == (Outcome.WRITTEN, data[:16])


def test_an_address_names_protocol_control_and_segment() -> None:
    assert Place.parse("rdma://[2001:db8::7]:7000/[2001:db8::7]:15001") == (
        "rdma",
        "[2001:db8::7]:7000",
        "[2001:db8::7]:15001",
    )
    for bad in ("", "tcp", "tcp://", "tcp://a:1", "tcp:///b:1", "tcp://a:1/", "127.0.0.1:7"):
        assert Place.parse(bad) is None


@pytest.mark.parametrize(
    ("protocol", "package"),
    [("tcp", "-non-cuda"), ("rdma", "mooncake-transfer-engine,"), ("ascend", "mooncake-transfer-engine-npu")],
)
def test_without_the_package_the_configuration_is_wrong(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch, protocol: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, "mooncake.engine", None)
    monkeypatch.setitem(sys.modules, "acl", SimpleNamespace(rt=SimpleNamespace(set_device=lambda _: 0)))
    with pytest.raises(ConfigError, match=package):
        Mooncake(settings(mooncake=protocol), Arena(SIZE))


@pytest.mark.parametrize(("refuses", "said"), [("initialize", "cannot start"), ("register_memory", "cannot register")])
def test_what_the_engine_refuses_at_its_start_is_said(fabric: Fabric, refuses: str, said: str) -> None:
    fabric.refuses = refuses
    with pytest.raises(ConfigError, match=said):
        Mooncake(settings(), Arena(SIZE))


@pytest.mark.parametrize("topology", ["{}", '{"cpu:0": [[], []]}', "no JSON", "[]"])
def test_rdma_without_a_device_is_no_rdma(fabric: Fabric, topology: str) -> None:
    fabric.topology = topology
    with pytest.raises(ConfigError, match="no RDMA device"):
        Mooncake(settings(mooncake="rdma"), Arena(SIZE))


def test_an_npu_is_chosen_before_the_engine_starts(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SimpleNamespace(set_device=lambda number: fabric.calls.append(("set_device", number)) or 0)
    monkeypatch.setitem(sys.modules, "acl", SimpleNamespace(rt=runtime))
    Mooncake(settings(mooncake="ascend", mooncake_device="3"), Arena(4096))
    assert fabric.calls == [
        ("set_device", 3),
        ("initialize", "127.0.0.1", "P2PHANDSHAKE", "ascend", ""),
        ("register_memory", 4096, "cpu:0"),
    ]
    runtime.set_device = lambda _: 107001
    with pytest.raises(ConfigError, match="107001"):
        Mooncake(settings(mooncake="ascend"), Arena(4096))
    with pytest.raises(ConfigError, match="eth0"):
        Mooncake(settings(mooncake="ascend", mooncake_device="eth0"), Arena(4096))
