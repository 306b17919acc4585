"""KV between the memories of real GPUs, in two processes and in one; either end may be killed."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import torch

from shared.config import KvSettings
from shared.engine.vllm_engine.device import RankDevices
from shared.engine.vllm_engine.inside.device_rank import DeviceServer
from shared.errors import WorkerLost
from shared.kv.arena import Arena, Range
from shared.kv.cuda_arena import BOUNCE_BYTES, CudaArena
from shared.kv.device_sums import Sums, digest
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.messages import KvGrant, decode, encode
from tests.cuda_ends import expect, filled, on_host, opened
from tests.engine_house import PROMPT, house, ids, relay, sequence
from tests.kv_ends import MIB
from tests.staged_engines import Side, handed_over
from tests.tiny_models import edit, make
from tests.waiting import until

pytestmark = pytest.mark.gpu

REPOSITORY = Path(__file__).parents[2]
SIZE = 64 * MIB + 5
LARGE = 1024 * MIB


@pytest.fixture(params=[0, 1])
def other(request: pytest.FixtureRequest) -> int:
    """The GPU of the other process."""
    if request.param >= torch.cuda.device_count():
        pytest.skip("there is one GPU")
    return int(request.param)


@pytest.fixture
async def here() -> AsyncIterator[tuple[Arena, CudaArena]]:
    arena, device = opened(SIZE, 0)
    yield arena, device
    assert arena.in_use == 0
    assert not arena.on_device
    assert not device._opened
    device.close()
    arena.close()


class Child:
    """The other end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, what: str, gpu: int, nbytes: int) -> "Child":
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        arguments = (sys.executable, "-m", "tests.cuda_ends", what, str(gpu), str(nbytes))
        return cls(await asyncio.create_subprocess_exec(*arguments, cwd=REPOSITORY, **pipes))

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), 60)


async def crosses_here(arena: Arena, device: CudaArena) -> None:
    """Show that the GPU and this process are well: a buffer crosses within it."""
    receiving, mirror = opened(SIZE, 0)
    receiver, sender = await Receiver.open(KvSettings(), receiving), Sender(arena, KvSettings())
    staging = filled(arena, device, SIZE)
    push, grant = expect(receiver, "here", SIZE)
    assert await sender.push(staging, grant) == "cuda_ipc"
    received = await push.received()
    assert isinstance(received, Range)
    assert on_host(mirror, received) == on_host(device, staging)
    staging.release()
    received.release()
    await sender.close()
    await receiver.close()
    mirror.close()
    receiving.close()


async def test_a_buffer_crosses_within_one_process(here: tuple[Arena, CudaArena]) -> None:
    await crosses_here(*here)


async def test_buffers_cross_to_another_process_and_nothing_stays_open(
    here: tuple[Arena, CudaArena], other: int
) -> None:
    arena, device = here
    child, sender = await Child.start("receive", other, SIZE), Sender(arena, KvSettings())
    for _ in range(3):
        staging = filled(arena, device, SIZE)
        child.tell("next")
        grant = decode(bytes.fromhex(await child.line()), KvGrant)
        assert await sender.push(staging, grant) == "cuda_ipc"
        assert await child.line() == on_host(device, staging)
        staging.release()
    assert await child.end() == 0
    await sender.close()


async def test_buffers_come_from_another_process(here: tuple[Arena, CudaArena], other: int) -> None:
    arena, device = here
    child, receiver = await Child.start("push", other, SIZE), await Receiver.open(KvSettings(), arena)
    sent = await child.line()
    for number in range(3):
        push, grant = expect(receiver, f"request-{number}", SIZE)
        child.tell(encode(grant).hex())
        received = await push.received()
        assert isinstance(received, Range)
        assert on_host(device, received) == sent
        received.release()
        assert [await child.line(), await child.line()] == ["pushing", "cuda_ipc"]
    assert len(device._opened) == 1
    assert await child.end() == 0
    await until(lambda: not device._opened, "the memory of the process that has gone is closed")
    await receiver.close()
    await crosses_here(arena, device)


async def test_a_sender_killed_mid_push_leaves_the_receiver_well(here: tuple[Arena, CudaArena], other: int) -> None:
    arena, device = opened(LARGE, 0)
    receiver = await Receiver.open(KvSettings(), arena)
    for number in range(3):
        child = await Child.start("push", other, LARGE)
        await child.line()
        push, grant = expect(receiver, f"request-{number}", LARGE)
        child.tell(encode(grant).hex())
        await child.line()
        if number:
            await until(lambda push=push: push.begun, "the push has begun")  # type: ignore[misc]
        await child.kill()
        push.cancel()
        await until(lambda: arena.in_use == 0 and not device._opened, "everything of the dead sender is free")
    child = await Child.start("push", other, LARGE)
    sent = await child.line()
    push, grant = expect(receiver, "last", LARGE)
    child.tell(encode(grant).hex())
    received = await push.received()
    await child.kill()
    assert isinstance(received, Range)
    assert on_host(device, received) == sent
    received.release()
    await receiver.close()
    device.close()
    arena.close()
    await crosses_here(*here)


async def test_a_receiver_killed_mid_push_leaves_the_sender_well(here: tuple[Arena, CudaArena], other: int) -> None:
    arena, device = opened(LARGE, 0)
    sender, staging = Sender(arena, KvSettings()), filled(arena, device, LARGE)
    child = await Child.start("receive", other, LARGE)
    child.tell("next")
    pushing = asyncio.create_task(sender.push(staging, decode(bytes.fromhex(await child.line()), KvGrant)))
    await until(lambda: bool(sender._moving), "the push has begun")
    await child.kill()
    [ending] = await asyncio.gather(pushing, return_exceptions=True)
    assert ending == "cuda_ipc" or isinstance(ending, WorkerLost)  # it may have been through already
    child = await Child.start("receive", other, LARGE)
    child.tell("next")
    grant = decode(bytes.fromhex(await child.line()), KvGrant)
    assert await sender.push(staging, grant) == "cuda_ipc"
    assert await child.line() == on_host(device, staging)
    assert await child.end() == 0
    staging.release()
    await sender.close()
    device.close()
    arena.close()
    await crosses_here(*here)


@pytest.mark.parametrize("nbytes", [1, 4096, BOUNCE_BYTES, 3 * BOUNCE_BYTES + 5])
async def test_a_buffer_is_brought_to_the_host_and_summed_up_as_on_the_cpu(
    here: tuple[Arena, CudaArena], nbytes: int
) -> None:
    arena, device = here
    staging = filled(arena, device, nbytes)
    device.to_host(staging.offset, staging.view, lambda: None)
    host = torch.tensor(bytearray(staging.view), dtype=torch.uint8)
    assert torch.equal(host, device.tensor(staging.offset, nbytes).cpu())
    expected = digest(Sums(torch.device("cpu"), nbytes).begin(host, lambda: None))
    assert device.checksum(staging.offset, nbytes, lambda: None) == expected
    staging.release()


@pytest.mark.parametrize("tokens", [PROMPT, PROMPT * 5])
async def test_a_request_goes_from_engine_to_engine_and_never_stops_in_host_memory(
    tokens: list[int], tmp_path: Path
) -> None:
    make("gemma 3", tmp_path)
    edit(tmp_path, eos_token_id=None, max_position_embeddings=1024)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    wanted = sequence("a", tokens, temperature=0.0)
    async with house("torch", tmp_path, device="cuda", dtype="float32") as engines:
        expected = ids(await relay(await engines.worker(), await engines.worker(), wanted))
        prefill, decode = await Side.open(engines), await Side.open(engines)
        assert await handed_over(prefill, decode, wanted) == ("cuda_ipc", expected)
        assert await handed_over(prefill, await Side.open(engines, 0), wanted) == ("shm", expected)


async def test_ranks_that_have_the_gpus_hand_over_for_their_workers(tmp_path: Path) -> None:
    world = max(2, torch.cuda.device_count())
    sides = []
    for name in ("prefill", "decode"):
        arena = Arena(SIZE, shared=True)
        host = memoryview(bytearray(arena.size))
        paths = [tmp_path / f"{name}-{rank}" for rank in range(world)]
        gpus = [rank % torch.cuda.device_count() for rank in range(world)]
        servers = [
            DeviceServer(path, partial(CudaArena, index=gpu), host) for path, gpu in zip(paths, gpus, strict=True)
        ]
        arena.device = ranks = await asyncio.to_thread(RankDevices, paths, arena.size)
        sides.append((arena, ranks, servers))
    (sending, _, gave), (receiving, _, took) = sides
    receiver, sender = await Receiver.open(KvSettings(), receiving), Sender(sending, KvSettings())
    staging = sending.reserve(SIZE)
    for server in gave:
        assert isinstance(server.device, CudaArena)
        server.device.tensor(staging.offset, SIZE).random_(0, 256)
        torch.cuda.synchronize(server.device.tensor(0, 1).device)
    sending.on_device.add(staging.offset)
    push, grant = expect(receiver, "ranks", SIZE)
    assert await sender.push(staging, grant) == "cuda_ipc"
    received = await push.received()
    assert isinstance(received, Range)
    for one, other in zip(gave, took, strict=True):
        assert isinstance(one.device, CudaArena)
        assert isinstance(other.device, CudaArena)
        sent, came = one.device.tensor(staging.offset, SIZE), other.device.tensor(received.offset, SIZE)
        assert torch.equal(sent.cpu(), came.cpu())
    staging.release()
    received.release()
    await sender.close()
    await receiver.close()
    for arena, ranks, servers in sides:
        ranks.close()
        for server in servers:
            server.close()
        arena.close()
