"""KV between devices when somebody lies, leaves, fails or is killed; on memory that stands in for a device's."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.errors import Cancelled, DeadlineExceeded, Draining, KvRefused, WorkerLost
from shared.kv import cuda_ipc
from shared.kv.link import Link
from shared.kv.tickets import Push
from shared.kv.wire import ANSWER_BYTES, Answer, Kind, Opening, opening_for, parse_answer
from shared.messages import KvGrant, decode, encode
from tests.device_ends import SIZE, DeviceEnds, arrived, device_ends, found
from tests.fake_device import FakeDevice
from tests.kv_ends import MIB, refused
from tests.waiting import until

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
async def ends() -> AsyncIterator[DeviceEnds]:
    async with device_ends() as made:
        yield made


async def test_bytes_that_change_under_the_copy_are_noticed(ends: DeviceEnds) -> None:
    sending, receiving = ends.devices
    sending.slow.set()
    staging = ends.staged(SIZE)
    push, grant = ends.granted_all(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    assert isinstance(push, Push)
    await until(lambda: receiving.halfway.is_set() and receiving.in_use == 0, "the receiver has its copy")
    sending[staging.offset : staging.offset + 1] = bytes([sending[staging.offset : staging.offset + 1][0] ^ 1])
    sending.slow.clear()
    with pytest.raises(KvRefused, match="bytes that arrived"):
        await pushing
    await refused(push, "checksum")
    staging.release()
    await ends.crosses()


async def greeted(ends: DeviceEnds, hello: bytes) -> Answer | None:
    """What the receiver answers to the first record of a connection; None when it closes."""
    link = await connected(ends)
    link.say(hello)
    try:
        return parse_answer(await link.read(ANSWER_BYTES, first_s=20, rest_s=20))
    except ConnectionError:
        return None
    finally:
        link.close()


async def connected(ends: DeviceEnds) -> Link:
    link = Link(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    await link.connect(f"\0{ends.endpoint.address}")
    return link


HELLO = Opening(Kind.HELLO, length=MIB).pack()
RECORD = cuda_ipc.pack_record("fake", b"/proc/self/fd/0")


@pytest.mark.parametrize(
    ("hello", "answer"),
    [
        (HELLO + cuda_ipc.pack_record("npu", b"x"), Answer.MEMORY),
        (HELLO + cuda_ipc.pack_record("fake", b"/nowhere"), Answer.MEMORY),
        (HELLO + cuda_ipc.pack_record("fake", b""), Answer.MEMORY),
        (HELLO + b"BtXX" + RECORD[4:], Answer.MALFORMED),
        (HELLO + RECORD[:12] + b"\xff\xff" + RECORD[14:], Answer.MALFORMED),
        (HELLO + RECORD[:4] + b"\xff" * 8 + RECORD[12:], Answer.MALFORMED),
        (Opening(Kind.PUSH, length=MIB).pack() + RECORD, Answer.MALFORMED),
        (b"GET / HTTP/1.1\r\n".ljust(len(HELLO + RECORD)), Answer.MALFORMED),
    ],
)
async def test_what_does_not_open_a_device_is_refused(ends: DeviceEnds, hello: bytes, answer: Answer) -> None:
    assert await greeted(ends, hello) is answer
    await ends.crosses()


@pytest.mark.parametrize("offset", [16 * MIB - SIZE + 1, 16 * MIB, 2**63, 2**64 - 1])
async def test_a_range_outside_the_senders_memory_is_refused(ends: DeviceEnds, offset: int) -> None:
    push, grant = ends.granted_all(SIZE)
    link = await cuda_ipc.connect(ends.endpoint.address, ends.devices[0])
    link.say(opening_for(grant, SIZE, offset).pack())
    assert parse_answer(await link.read(ANSWER_BYTES, first_s=20, rest_s=20)) is Answer.MEMORY
    assert isinstance(push, Push)
    await refused(push, "memory")
    link.close()
    await ends.crosses()


async def test_another_users_socket_is_not_trusted(ends: DeviceEnds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    with pytest.raises(WorkerLost, match="user"):
        await ends.sender.push(staging, grant)
    push.cancel()
    staging.release()
    assert ends.devices[1].opens == 0


async def ended(
    ends: DeviceEnds, slow: FakeDevice, end: Callable[[asyncio.Task[str], Push], None], *, own: bool
) -> None:
    """End a push that stands still in a device: at once where the end is the device's `own`, else with the copy."""
    slow.slow.set()
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    await until(lambda: slow.in_use > 0, "the copy is under way")
    end(pushing, push)
    if own:
        await until(lambda: slow.in_use == 0, "no thread is in the memory of who ended it")
    slow.slow.clear()
    await asyncio.wait([pushing], timeout=15)
    assert pushing.done()
    await until(lambda: all(device.in_use == 0 for device in ends.devices), "no thread is in the memory")
    staging.release()
    push.cancel()
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is released")
    assert pushing.cancelled() or isinstance(pushing.exception(), WorkerLost)
    await ends.crosses()


@pytest.mark.parametrize("where", [0, 1])
async def test_a_cancelled_push_leaves_no_thread_in_either_memory(ends: DeviceEnds, where: int) -> None:
    await ended(ends, ends.devices[where], lambda pushing, _: pushing.cancel() and None, own=where == 0)


@pytest.mark.parametrize("where", [0, 1])
async def test_a_receiver_that_waits_no_longer_gets_its_staging_back(ends: DeviceEnds, where: int) -> None:
    await ended(ends, ends.devices[where], lambda _, push: push.cancel(), own=where == 1)


async def test_a_cancelled_way_by_host_memory_ends_before_the_range_is_free(ends: DeviceEnds) -> None:
    device = ends.devices[0]
    device.slow.set()
    staging = ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    grant = KvGrant(grant.request_id, 0, "d", (1, 1), grant.ticket, ends.receiver.endpoints[1:], grant.deadline_ms)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    await until(lambda: device.in_use > 0, "the copy is under way")
    pushing.cancel()
    await asyncio.sleep(0.05)
    assert not pushing.done()
    device.slow.clear()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert device.in_use == 0
    staging.release()
    push.cancel()


async def test_a_push_stands_still_no_longer_than_its_deadline(ends: DeviceEnds) -> None:
    ends.devices[1].slow.set()
    staging = ends.staged(SIZE)
    push, grant = ends.granted_all(SIZE, 300)
    with pytest.raises(DeadlineExceeded):
        await ends.sender.push(staging, grant)
    with pytest.raises(DeadlineExceeded):
        await arrived(push)
    await until(lambda: ends.receiving.in_use == 0, "the receiver's staging is released")
    staging.release()
    ends.devices[1].slow.clear()


async def test_closing_the_sender_ends_its_push(ends: DeviceEnds) -> None:
    ends.devices[1].slow.set()
    staging = ends.staged(SIZE)
    push, grant = ends.granted_all(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    await until(lambda: ends.devices[1].in_use > 0, "the copy is under way")
    await ends.sender.close()
    ends.devices[1].slow.clear()
    with pytest.raises(Draining):
        await pushing
    with pytest.raises(KvRefused):
        await arrived(push)
    staging.release()


async def test_closing_the_receiver_while_it_copies_lets_go_of_everything(ends: DeviceEnds) -> None:
    ends.devices[1].slow.set()
    staging = ends.staged(SIZE)
    push, grant = ends.granted_all(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    await until(lambda: ends.devices[1].in_use > 0, "the copy is under way")
    await ends.receiver.close()
    with pytest.raises(WorkerLost):
        await pushing
    with pytest.raises((Draining, KvRefused, Cancelled)):
        await arrived(push)
    assert ends.devices[1].opened == 0
    staging.release()


async def child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.device_ends", *arguments, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


async def test_a_sender_killed_mid_push_costs_one_ticket(ends: DeviceEnds) -> None:
    push, grant = ends.granted(SIZE)
    process = await child("push", encode(grant).hex())
    assert await line(process) == "halfway"
    process.send_signal(signal.SIGKILL)
    await refused(push, "length")
    await process.wait()
    await until(lambda: ends.receiving.in_use == 0, "the staging is released")
    await until(lambda: ends.devices[1].opened == 0, "the dead sender's memory is closed")
    await ends.crosses()


async def test_a_receiver_killed_mid_push_is_a_lost_worker_and_the_buffer_can_go_elsewhere(ends: DeviceEnds) -> None:
    process = await child("receive")
    grant = decode(bytes.fromhex(await line(process)), KvGrant)
    staging = ends.staged(SIZE)
    pushing = asyncio.create_task(ends.sender.push(staging, grant))
    assert await line(process) == "halfway"
    process.send_signal(signal.SIGKILL)
    with pytest.raises(WorkerLost):
        await pushing
    await process.wait()
    push, second = ends.granted(SIZE)
    assert await ends.sender.push(staging, second) == "cuda_ipc"
    received = await arrived(push)
    assert found(received) == found(staging)
    received.release()
    staging.release()
