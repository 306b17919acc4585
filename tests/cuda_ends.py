"""One end of a hand-off between GPUs as a process of its own, told what to do line by line.

`receive GPU BYTES`: prints a grant for one buffer and then its checksum, over and over while lines come.
`push GPU BYTES`: pushes one buffer after another to the grants that come as lines; prints the checksum of each before.
"""

import asyncio
import sys
import time

import torch

from shared.config import KvSettings
from shared.kv.arena import Arena, Range
from shared.kv.cuda_arena import CudaArena
from shared.kv.cuda_ipc import TRANSPORT
from shared.kv.layout import checksum
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.kv.tickets import Push
from shared.kv.wire import push_key
from shared.messages import Endpoint, KvGrant, decode, encode


def opened(nbytes: int, gpu: int) -> tuple[Arena, CudaArena]:
    """An arena with as much on the GPU."""
    arena = Arena(nbytes)
    arena.device = device = CudaArena(arena.size, gpu)
    return arena, device


def filled(arena: Arena, device: CudaArena, nbytes: int) -> Range:
    """A range with random bytes on the GPU."""
    staging = arena.reserve(nbytes)
    place = device.tensor(staging.offset, nbytes)
    place.copy_(torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device=place.device))
    device.finish()
    arena.on_device.add(staging.offset)
    return staging


def on_host(device: CudaArena, staging: Range) -> str:
    """The checksum of the range's bytes on the GPU, computed in host memory: not by what the push uses."""
    assert staging.offset in staging.arena.on_device
    return checksum(memoryview(device.tensor(staging.offset, staging.nbytes).cpu().numpy())).hex()


def expect(receiver: Receiver, key: str, nbytes: int) -> tuple[Push, KvGrant]:
    """A grant for a push between devices alone."""
    deadline_ms = int(time.time() * 1000) + 60_000
    push = receiver.expect(push_key(key, 0), nbytes, deadline_ms)
    assert isinstance(push, Push)
    endpoints: list[Endpoint] = [one for one in receiver.endpoints if one.transport == TRANSPORT]
    return push, KvGrant(key, 0, "d", (1, 1), push.ticket, endpoints, deadline_ms)


def say(line: str) -> None:
    """To the test that started us."""
    print(line, flush=True)  # noqa: T201


async def _receive(gpu: int, nbytes: int) -> None:
    arena, device = opened(nbytes, gpu)
    receiver = await Receiver.open(KvSettings(), arena)
    number = 0
    while await asyncio.to_thread(sys.stdin.readline):
        number += 1
        push, grant = expect(receiver, f"request-{number}", nbytes)
        say(encode(grant).hex())
        received = await push.received()
        assert isinstance(received, Range)
        say(on_host(device, received))
        received.release()
    await receiver.close()
    device.close()
    arena.close()


async def _push(gpu: int, nbytes: int) -> None:
    arena, device = opened(nbytes, gpu)
    sender = Sender(arena, KvSettings())
    staging = filled(arena, device, nbytes)
    say(on_host(device, staging))
    while line := await asyncio.to_thread(sys.stdin.readline):
        say("pushing")
        say(await sender.push(staging, decode(bytes.fromhex(line), KvGrant)))
    staging.release()
    await sender.close()
    device.close()
    arena.close()


if __name__ == "__main__":
    asyncio.run({"receive": _receive, "push": _push}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3])))
