"""Which way a push takes, and what a process on the same host may hand over."""

import os
import socket
from pathlib import Path

import pytest

from shared.config import KvSettings
from shared.errors import KvRefused, WorkerLost
from shared.kv import shm
from shared.kv.arena import Arena
from shared.kv.link import Link
from shared.kv.sender import Sender
from shared.kv.wire import ANSWER_BYTES, Answer, Kind, Opening, parse_answer
from shared.messages import Endpoint, KvGrant
from tests.kv_child import SIZE
from tests.kv_ends import MIB, Ends, HandSender


@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
async def test_shared_memory_is_chosen_by_itself(ends: Ends) -> None:
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    grant = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, ends.receiver.endpoints, grant.deadline_ms)
    assert await ends.sender.push(staging, grant) == "shm"
    (await push.received()).release()
    staging.release()


async def test_without_shared_memory_a_receiver_of_this_host_offers_tcp_alone() -> None:
    ends = await Ends.open("tcp", KvSettings(shared_memory=False))
    assert [one.transport for one in ends.receiver.endpoints] == ["tcp"]
    await ends.crosses()
    await ends.close()


@pytest.mark.parametrize(
    ("advertised", "told"),
    [
        ("decode-7.example", "decode-7.example:{}"),
        ("decode-7.example:41", "decode-7.example:41"),
        ("[2001:db8::7]:41", "[2001:db8::7]:41"),
        ("[2001:db8::7]", "[2001:db8::7]:{}"),
    ],
)
async def test_senders_are_told_the_address_that_is_advertised(advertised: str, told: str) -> None:
    plain = await Ends.open("tcp", KvSettings(port=0))
    port = plain.endpoint.address.rpartition(":")[2]
    await plain.close()
    ends = await Ends.open("tcp", KvSettings(port=int(port), advertise=advertised))
    assert ends.endpoint.address == told.format(port)
    await ends.close()


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
