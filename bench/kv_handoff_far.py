"""Both processes of the hand-off benchmark: an engine's cache on the processor, staging, and a way across.

Owns what the two ends are made of. `Far` starts the receiving process and is the sending one's handle on it.
"""

import asyncio
import multiprocessing
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Self

import torch

from shared.config import KvSettings
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import resolve
from shared.kv.arena import Arena
from shared.kv.block_fixed import BlockFixed
from shared.kv.growth import TAIL_BYTES
from shared.kv.layout import KvLayout
from shared.kv.receiver import Receiver
from shared.kv.wire import push_key
from shared.messages import KvGrant, decode, encode

DEADLINE_S: Final = 120.0
SETTINGS: Final = KvSettings(tcp_connections=1)  # as block-fixed has: one


@dataclass(frozen=True, slots=True)
class Push:
    """What is asked of the far end. `block_bytes` 0: block-free."""

    transport: str
    nbytes: int
    block_bytes: int


class Pages:
    """A cache of so many tokens, one sequence's, its blocks from the last to the first."""

    def __init__(self, layout: KvLayout, tokens: int) -> None:
        self._tokens = tokens
        number = layout.blocks_for(tokens)
        self._blocks = list(range(number, 0, -1))
        self._cache = Cache(layout, number, torch.bfloat16, resolve("cpu"))

    def export(self, view: memoryview) -> None:
        """Gather them."""
        with torch.inference_mode():
            self._cache.export(self._blocks, view)

    def take_in(self, view: memoryview) -> None:
        """Scatter them."""
        with torch.inference_mode():
            self._cache.take_in(self._blocks, self._tokens, view)


class Far:
    """The receiving process. A context manager."""

    def __init__(self, layout: KvLayout, tokens: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, layout, tokens), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join(DEADLINE_S)

    def grant(self, push: Push) -> KvGrant:
        """For one push."""
        self._ours.send(push)
        return decode(self._hear(), KvGrant)

    def taken_in_s(self) -> float:
        """How long the scatter of the last push took, there; 0 where nothing is scattered."""
        return float(self._hear())

    def _hear(self) -> Any:  # noqa: ANN401  what the pipe brings
        if not self._ours.poll(DEADLINE_S):
            raise TimeoutError("the benchmark's receiver does not answer")
        return self._ours.recv()


def _main(pipe: Connection, layout: KvLayout, tokens: int) -> None:
    asyncio.run(_serve(pipe, layout, tokens))


async def _serve(pipe: Connection, layout: KvLayout, tokens: int) -> None:
    nbytes = layout.buffer_bytes(tokens)
    arena, pages = Arena(nbytes + TAIL_BYTES), Pages(layout, tokens)
    receivers: dict[int, Receiver] = {}
    pushes = 0
    with suppress(EOFError):
        while True:
            asked: Push = await asyncio.to_thread(pipe.recv)
            pushes += 1
            if asked.block_bytes not in receivers:
                blocks = BlockFixed(asked.block_bytes, seed=2) if asked.block_bytes else None
                receivers[asked.block_bytes] = await Receiver.open(SETTINGS, arena, blocks)
            receiver = receivers[asked.block_bytes]
            deadline_ms = int((time.time() + DEADLINE_S) * 1000)
            push = receiver.expect(push_key("bench", pushes), asked.nbytes, deadline_ms)
            endpoints = [one for one in receiver.endpoints if one.transport == asked.transport]
            pipe.send(encode(KvGrant("bench", pushes, "far", (1, 1), push.ticket, endpoints, deadline_ms)))
            received = await push.received()
            started = time.perf_counter()
            if not asked.block_bytes:
                pages.take_in(received.view[:nbytes])
            pipe.send(time.perf_counter() - started if not asked.block_bytes else 0.0)
            received.release()
    for receiver in receivers.values():
        await receiver.close()
    arena.close()
