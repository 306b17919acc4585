"""The same with Mooncake itself, where its package is installed; peers are stopped and killed while they write."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.errors import DeadlineExceeded, KvRefused, WorkerLost
from shared.kv.arena import Arena
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.messages import KvGrant, decode, encode
from tests.kv_ends import MIB, in_ms
from tests.kv_mooncake import GRACE_S, both_ends, settings
from tests.kv_mooncake_child import SIZE
from tests.waiting import until

pytest.importorskip("mooncake.engine", exc_type=ImportError)
REPOSITORY = Path(__file__).parents[3]


async def child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kv_mooncake_child", *arguments, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    arena = Arena(SIZE)
    sender = Sender(arena, settings())
    yield sender
    await sender.close()
    assert arena.in_use == 0
    arena.close()


async def halfway(sender: Sender, milliseconds: int) -> tuple[asyncio.subprocess.Process, "asyncio.Task[str]"]:
    """Return a stopped receiver and the push to it."""
    process = await child("receive")
    assert process.stdout is not None
    grant = decode(bytes.fromhex((await asyncio.wait_for(process.stdout.readline(), 60)).decode()), KvGrant)
    grant = KvGrant(grant.request_id, 0, "child", (1, 1), grant.ticket, grant.endpoints, in_ms(milliseconds))
    staging = sender._arena.reserve(SIZE)
    pushing = asyncio.create_task(sender.push(staging, grant))
    pushing.add_done_callback(lambda _: staging.release())
    writes = sender._writes
    assert writes is not None
    await until(lambda: writes.under_way == 1, "the write begins")
    process.send_signal(signal.SIGSTOP)
    return process, pushing


@pytest.mark.parametrize("nbytes", [1, 100, 4096, 3 * MIB + 5])
async def test_a_buffer_crosses(nbytes: int) -> None:
    ends = await both_ends()
    await ends.crosses(nbytes)
    await ends.crosses(nbytes)
    assert ends.sender.links == 1
    await ends.close()


async def test_a_receiver_that_is_killed_mid_write_is_lost_at_once(sender: Sender) -> None:
    process, pushing = await halfway(sender, 60_000)
    await asyncio.sleep(0.2)
    assert not pushing.done()
    process.kill()
    await process.wait()
    with pytest.raises(WorkerLost):
        await asyncio.wait_for(pushing, 10)
    await until(lambda: sender._arena.in_use == 0, "the range is free")


async def test_a_receiver_that_stops_mid_write_costs_no_more_than_the_deadline(sender: Sender) -> None:
    started = time.monotonic()
    process, pushing = await halfway(sender, 1000)
    with pytest.raises(DeadlineExceeded):
        await pushing
    assert time.monotonic() - started < 30
    assert sender._arena.in_use, "the engine still reads it"
    process.send_signal(signal.SIGCONT)
    await until(lambda: sender._arena.in_use == 0, "the write came to its end")
    await asyncio.wait_for(process.wait(), 30)
    assert process.returncode == 1, "what nobody waited for any more was refused"


async def test_what_a_killed_sender_was_writing_is_kept_for_the_grace() -> None:
    arena = Arena(SIZE)
    receiver = await Receiver.open(settings(), arena)
    deadline_ms = in_ms(60_000)
    push = receiver.expect("request#0", SIZE, deadline_ms)
    grant = KvGrant("request", 0, "d", (1, 1), push.ticket, receiver.endpoints[:1], deadline_ms)
    process = await child("push", encode(grant).hex())
    await until(lambda: push.begun, "the write begins", 60)
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.2)
    process.kill()
    await process.wait()
    with pytest.raises(KvRefused, match="broke off"):
        await asyncio.wait_for(push.received(), 10)
    failed = time.monotonic()
    assert arena.in_use == SIZE
    await until(lambda: arena.in_use == 0, "the range is free")
    assert time.monotonic() - failed > GRACE_S / 2
    await receiver.close()
    arena.close()
