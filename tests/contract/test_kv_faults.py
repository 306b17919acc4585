"""The KV hand-off when the other end dies, stalls or lies, and when a way across is not there."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from shared.config import KvSettings
from shared.errors import BatonError, DeadlineExceeded, Draining, KvRefused, WorkerLost
from shared.kv import shm
from shared.kv.arena import Arena, Range
from shared.kv.link import Link
from shared.kv.sender import Sender
from shared.kv.wire import ANSWER_BYTES, Answer, Kind, Opening, pack_answer, parse_answer
from shared.messages import Endpoint, KvGrant, decode, encode
from tests.kv_child import SIZE
from tests.kv_ends import MIB, Ends, HandReceiver, HandSender, descriptors
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
GO, DONE = pack_answer(Answer.GO), pack_answer(Answer.DONE)
LARGE = 64 * MIB
"""More than socket buffers take up, so that a receiver which does not read stops the sender."""


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
async def staging() -> AsyncIterator[Range]:
    before = descriptors()
    arena = Arena(LARGE)
    staging = arena.reserve(LARGE)
    yield staging
    staging.release()
    arena.close()
    assert descriptors() == before


@pytest.fixture
async def sender(staging: Range) -> AsyncIterator[Sender]:
    sender = Sender(staging.arena, KvSettings(max_transfers=2))
    yield sender
    await sender.close()
    assert not sender._moving


@pytest.fixture
async def liar(staging: Range, transport: str) -> AsyncIterator[HandReceiver]:
    """A receiver by hand."""
    liar = HandReceiver(transport)
    yield liar
    liar.hang_up()


async def child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kv_child", *arguments, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


# ---- death -----------------------------------------------------------------------------------------------------------


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


# ---- stalling and lying receivers ------------------------------------------------------------------------------------


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


# ---- which way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
async def test_shared_memory_is_chosen_by_itself(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    grant = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, ends.receiver.endpoints, grant.deadline_ms)
    assert await ends.sender.push(staging, grant) == "shm"
    (await push.received()).release()
    staging.release()


@pytest.mark.parametrize(
    "elsewhere",
    [
        Endpoint("shm", f"baton-kv-{shm.here()}-gone"),
        Endpoint("shm", "baton-kv-another-host-1"),
        Endpoint("shm", "/run/baton.sock"),
        Endpoint("shm", f"baton-kv-{shm.here()}-{'x' * 200}"),
        Endpoint("carrier-pigeon", "coop 7"),
        Endpoint("tcp", "127.0.0.1:1"),
        Endpoint("tcp", "no address"),
        Endpoint("tcp", "127.0.0.1:99999"),
    ],
)
@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
async def test_an_endpoint_that_cannot_be_reached_is_passed_over(ends: Ends, elsewhere: Endpoint) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    endpoints = [elsewhere, ends.endpoint]
    grant = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, endpoints, grant.deadline_ms)
    assert await ends.sender.push(staging, grant) == "tcp"
    (await push.received()).release()
    with pytest.raises(WorkerLost, match="no endpoint can be reached"):
        await ends.sender.push(staging, KvGrant("r", 0, "d", (1, 1), bytes(16), [elsewhere], grant.deadline_ms))
    staging.release()


async def test_another_users_socket_is_not_trusted(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    if ends.transport == "shm":
        with pytest.raises(WorkerLost, match="user"):
            await ends.sender.push(staging, grant)
        push.cancel()
    else:
        await ends.sender.push(staging, grant)
        (await push.received()).release()
    staging.release()


@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
async def test_without_a_descriptor_only_tcp_is_used(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    arena = Arena(SIZE)
    sender = Sender(arena, ends.settings)
    staging = arena.reserve(SIZE)
    push, grant = ends.granted(SIZE)
    grant = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, ends.receiver.endpoints, grant.deadline_ms)
    assert await sender.push(staging, grant) == "tcp"
    (await push.received()).release()
    staging.release()
    await sender.close()
    arena.close()


# ---- what a local peer may hand over ---------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["shm"], indirect=True)
@pytest.mark.parametrize("what", ["nothing", "a pipe", "a file", "unsealed memory", "memory of another size"])
async def test_what_is_no_sealed_memory_is_refused(ends: Ends, tmp_path: Path, what: str) -> None:
    link, fds = await _local_connection(ends), []
    if what == "a pipe":
        fds = list(os.pipe())
    elif what == "a file":
        fds = [os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)]
    elif what == "unsealed memory":
        fds = [os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)]
        os.ftruncate(fds[0], MIB)
    elif what == "memory of another size":
        fds = [os.dup(ends.sending.fd or 0)]
    link.say(Opening(Kind.HELLO, length=MIB).pack(), tuple(fds[:1]))
    answer = parse_answer(await link.read(ANSWER_BYTES, first_s=20, rest_s=20))
    assert answer is Answer.MEMORY
    link.close()
    for fd in fds:
        os.close(fd)
    await ends.crosses()


@pytest.mark.parametrize("transport", ["shm"], indirect=True)
@pytest.mark.parametrize("offset", [16 * MIB - SIZE + 1, 16 * MIB, 2**63, 2**64 - 1])
async def test_a_range_outside_the_memory_is_refused(ends: Ends, offset: int) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    peer = await HandSender.connect(ends)
    assert await peer.open(grant, staging, offset=offset) is Answer.MEMORY
    with pytest.raises(KvRefused):
        await push.received()
    peer.close()
    staging.release()
    await ends.crosses()


async def _local_connection(ends: Ends) -> Link:
    link = Link(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    await link.connect(f"\0{ends.endpoint.address}")
    return link


# ---- where it runs ---------------------------------------------------------------------------------------------------


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
