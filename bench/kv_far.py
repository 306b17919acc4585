"""The receiving process of the KV benchmark, and the handle that the sending one has on it."""

import asyncio
import importlib.util
import multiprocessing
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Self

from shared.config import KvSettings
from shared.kv import stripes
from shared.kv.arena import Arena
from shared.kv.layout import CHUNK_BYTES, chunk_ranges
from shared.kv.receiver import Receiver
from shared.kv.wire import push_key
from shared.messages import KvGrant, decode, encode

DEADLINE_S = 60.0
TICK_S = 0.0005


def settings() -> KvSettings:
    """Of both ends: Mooncake over TCP, too, where its package is installed."""
    found = importlib.util.find_spec("mooncake") is not None
    return KvSettings(mooncake="tcp" if found else "none")


class Far:
    """Starts the process, asks it for grants, and sends to it over bare sockets. A context manager."""

    connections = stripes.connections(settings())
    """Over which a large buffer goes."""

    def __init__(self, arena_bytes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, arena_bytes), daemon=True)
        self._process.start()
        theirs.close()
        address = ("127.0.0.1", self._hear())
        self._raw = [socket.create_connection(address) for _ in range(self.connections)]
        for raw in self._raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._threads = ThreadPoolExecutor(self.connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        for raw in self._raw:
            raw.close()
        self._ours.close()
        self._process.join(DEADLINE_S)

    def grant(self, nbytes: int, transport: str) -> KvGrant:
        """A grant for one push by that transport."""
        self._ours.send(("grant", nbytes, transport))
        return decode(self._hear(), KvGrant)

    def raw_send(self, view: memoryview, connections: int = 1) -> float:
        """Seconds that the bytes take over bare sockets, until the other end says it has them."""
        self._ours.send(("raw", len(view), connections))
        self._hear()
        start = time.perf_counter()
        parts = [stripes.part(len(view), connections, index) for index in range(connections)]
        list(self._threads.map(_send_raw, self._raw[:connections], [view[low:high] for low, high in parts]))
        return time.perf_counter() - start

    def loop_delay_ms(self, idle_s: float = 0.0) -> float:
        """How late its event loop woke (median) since last asked, with a pause before where the loop is to be idle."""
        if idle_s:
            self._ours.send(("delay", 0, None))
            self._hear()
            time.sleep(idle_s)
        self._ours.send(("delay", 0, None))
        return float(self._hear())

    def _hear(self) -> Any:  # noqa: ANN401  what the pipe brings
        if not self._ours.poll(DEADLINE_S):
            raise TimeoutError("the benchmark's receiver does not answer")
        return self._ours.recv()


def _main(pipe: Connection, arena_bytes: int) -> None:
    asyncio.run(_serve(pipe, arena_bytes))


async def _serve(pipe: Connection, arena_bytes: int) -> None:
    arena = Arena(arena_bytes)
    receiver = await Receiver.open(settings(), arena)
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    raws = [listener.accept()[0] for _ in range(Far.connections)]
    for raw in raws:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    delays: list[float] = []
    watching = asyncio.create_task(_watch(delays))
    pushes = 0
    with suppress(EOFError):
        while True:
            what, nbytes, asked = await asyncio.to_thread(pipe.recv)
            if what == "grant":
                pushes += 1
                deadline_ms = int((time.time() + DEADLINE_S) * 1000)
                push = receiver.expect(push_key("bench", pushes), nbytes, deadline_ms)
                endpoints = [one for one in receiver.endpoints if one.transport == asked]
                pipe.send(encode(KvGrant("bench", pushes, "far", (1, 1), push.ticket, endpoints, deadline_ms)))
                (await push.received()).release()
            elif what == "raw":
                staging = arena.reserve(nbytes)
                pipe.send(None)
                parts = [stripes.part(nbytes, asked, index) for index in range(asked)]
                works = zip(raws, parts, strict=False)
                await asyncio.gather(
                    *(asyncio.to_thread(_take_raw, raw, staging.view[slice(*at)]) for raw, at in works)
                )
                staging.release()
            else:
                pipe.send(statistics.median(delays or [0.0]) * 1000)
                delays.clear()
    watching.cancel()
    for raw in raws:
        raw.close()
    listener.close()
    await receiver.close()
    arena.close()


async def _watch(delays: list[float]) -> None:
    while True:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        delays.append(time.perf_counter() - due)


def _send_raw(raw: socket.socket, view: memoryview) -> None:
    for low, high in chunk_ranges(len(view)):
        raw.sendall(view[low:high])
    if raw.recv(1) != b"k":
        raise ConnectionError("the raw receiver left")


def _take_raw(raw: socket.socket, view: memoryview) -> None:
    taken = 0
    while taken < len(view):
        taken += raw.recv_into(view[taken : taken + CHUNK_BYTES])
    raw.sendall(b"k")
