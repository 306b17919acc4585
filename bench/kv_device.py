"""KV from one GPU engine's cache to another's in another process: gathered, handed over, scattered.

512 MiB of blocks, as the torch engine's cache exports and takes them in, by the worker's own sender and receiver: once
with staging on the device, by CUDA IPC, once by way of host memory, with pinned copies on either side and shared memory
between. In turns, so that both see the same load; of each the best round counts. With two GPUs there are rows for two
processes on one of them and for one process on each. `kv_device_copies` has the rows of the parts. Without a GPU
there are none.
"""

import asyncio
import multiprocessing
import time
from collections import defaultdict
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

import torch

from bench import kv_device_copies
from bench.kv_device_copies import DEADLINE_S, LAYOUT
from bench.table import Row
from shared.config import KvSettings
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.staging import Staging, open_memory
from shared.kv.arena import Arena
from shared.kv.receiver import Receiver
from shared.kv.sender import Sender
from shared.kv.wire import push_key
from shared.messages import KvGrant, decode, encode

BLOCKS: Final = 256
TOKENS: Final = BLOCKS * LAYOUT.block_tokens
NBYTES: Final = BLOCKS * LAYOUT.block_bytes
ROUNDS: Final = 12
WAYS: Final = ("cuda_ipc", "shm")

Times = dict[str, dict[str, float]]


def rows() -> list[Row]:
    """Run it."""
    found = kv_device_copies.rows()
    for there in range(min(2, torch.cuda.device_count())):
        best = asyncio.run(_measure(there))
        where = "to another GPU" if there else "one GPU"
        whole = {way: best[way]["whole"] * 1e3 for way in WAYS}
        rate = {way: NBYTES / best[way]["push"] / 1e9 for way in WAYS}
        found += [
            Row(f"kv cache to cache 512 MiB, {where}", whole["cuda_ipc"], "ms", "by host memory", whole["shm"]),
            Row(f"kv push cuda_ipc 512 MiB, {where}", rate["cuda_ipc"], "GB/s", "kv push shm", rate["shm"]),
        ]
    return found


class _Side:
    """A cache on a GPU and, for each way, an arena: with staging on the GPU, or without."""

    def __init__(self, gpu: int) -> None:
        device = resolve(f"cuda:{gpu}")
        memory = open_memory(device, NBYTES)
        if memory is None:
            raise RuntimeError("the GPU is none of CUDA's")
        self._memory = memory
        self._cache = Cache(LAYOUT, BLOCKS, torch.bfloat16, device)
        self._blocks = list(range(1, BLOCKS + 1))
        self.arenas = {way: Arena(NBYTES) for way in WAYS}
        self.arenas["cuda_ipc"].device = memory
        self._staging = {"cuda_ipc": Staging(self.arenas["cuda_ipc"], memory), "shm": None}

    def export(self, way: str, view: memoryview) -> None:
        """Gather the cache's blocks."""
        with torch.inference_mode():
            self._cache.export(self._blocks, view, self._staging[way])

    def take_in(self, way: str, view: memoryview) -> None:
        """Scatter them."""
        with torch.inference_mode():
            self._cache.take_in(self._blocks, TOKENS, view, self._staging[way])

    def close(self) -> None:
        """Give all memory back."""
        self._memory.close()
        for arena in self.arenas.values():
            arena.close()


async def _measure(there: int) -> Times:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, there), daemon=True)
    process.start()
    theirs.close()
    side = _Side(0)
    senders = {way: Sender(arena, KvSettings()) for way, arena in side.arenas.items()}
    times: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    for _ in range(ROUNDS + 1):
        for way in WAYS:
            for name, seconds in (await _round(side, senders[way], way, ours)).items():
                times[way][name].append(seconds)
    ours.close()
    await asyncio.to_thread(process.join, DEADLINE_S)
    for sender in senders.values():
        await sender.close()
    side.close()
    return {way: {name: min(seconds[1:]) for name, seconds in of.items()} for way, of in times.items()}


async def _round(side: _Side, sender: Sender, way: str, pipe: Connection) -> dict[str, float]:
    pipe.send(way)
    grant = decode(await asyncio.to_thread(_hear, pipe), KvGrant)
    staging = side.arenas[way].reserve(NBYTES)
    started = time.perf_counter()
    side.export(way, staging.view)
    gathered = time.perf_counter()
    used = await sender.push(staging, grant)
    pushed = time.perf_counter()
    scattered = await asyncio.to_thread(_hear, pipe)  # the time it took: its clock is not ours
    if used != way:
        raise RuntimeError(f"pushed by {used} instead of {way}")
    staging.release()
    return {"push": pushed - gathered, "whole": pushed - started + scattered}


def _hear(pipe: Connection) -> Any:  # noqa: ANN401  what the pipe brings
    if not pipe.poll(DEADLINE_S):
        raise TimeoutError("the benchmark's receiver does not answer")
    return pipe.recv()


def _main(pipe: Connection, gpu: int) -> None:
    asyncio.run(_serve(pipe, gpu))


async def _serve(pipe: Connection, gpu: int) -> None:
    side = _Side(gpu)
    receivers = {way: await Receiver.open(KvSettings(), arena) for way, arena in side.arenas.items()}
    pushes = 0
    with suppress(EOFError):
        while True:
            way = await asyncio.to_thread(pipe.recv)
            pushes += 1
            deadline_ms = int((time.time() + DEADLINE_S) * 1000)
            push = receivers[way].expect(push_key("bench", pushes), NBYTES, deadline_ms)
            endpoints = [one for one in receivers[way].endpoints if one.transport == way]
            pipe.send(encode(KvGrant("bench", pushes, "far", (1, 1), push.ticket, endpoints, deadline_ms)))
            received = await push.received()
            started = time.perf_counter()
            side.take_in(way, received.view)
            pipe.send(time.perf_counter() - started)
            received.release()
    for receiver in receivers.values():
        await receiver.close()
    side.close()
