"""A TCP line that a test can hurt while it is in use: a proxy in user space between a client and a server.

Owns the listening port and the connections across it; each direction (`up`: to the server, `down`: from it) has faults
of its own. A held direction keeps its bytes, as TCP does across a partition, and delivers them when it is released.
Knows no protocol.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log
from random import Random
from typing import Self

HOST = "127.0.0.1"
CHUNK = 1 << 16
QUEUED = 64
"""Chunks under way in one direction; then the proxy stops reading, so that a sender meets back-pressure."""

Reading = asyncio.StreamReader
Writing = asyncio.StreamWriter


@dataclass
class Way:
    """One direction's faults. A change holds for whatever comes next, on connections that exist too."""

    random: Random = field(default_factory=Random)
    swallow: bool = False  # read and forget
    delay_s: float = 0.0
    jitter_s: float = 0.0  # added or taken off at random; the order is kept
    bytes_per_s: float = 0.0  # 0: no limit
    slice_bytes: int = 0  # written so many at a time; 0: as they come
    flip_at: tuple[int, ...] = ()  # one bit of each of these bytes of a connection, counted from 0
    flip_rate: float = 0.0  # of each byte
    close_after: int = -1  # bytes of a connection; the next one brings an orderly end; -1: never
    reset_after: int = -1  # bytes of a connection; the next one brings a reset
    passed: int = 0  # bytes, over all connections
    flipped: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._open.set()

    @property
    def held(self) -> bool:
        """Whether nothing gets through for now."""
        return not self._open.is_set()

    def hold(self) -> None:
        """Let nothing through until `release`; the connection stays."""
        self._open.clear()

    def release(self) -> None:
        """Let through what was held, and whatever comes."""
        self._open.set()

    async def opened(self) -> None:
        """Wait until something may get through."""
        await self._open.wait()

    def heal(self) -> None:
        """End all faults."""
        fresh = Way()
        for name in ("swallow", "delay_s", "jitter_s", "bytes_per_s", "slice_bytes", "flip_at", "flip_rate"):
            setattr(self, name, getattr(fresh, name))
        self.close_after = self.reset_after = -1
        self.release()

    def due(self, nbytes: int, now: float, before: float) -> float:
        """When so many bytes that came now are through; what came before them is through at `before`."""
        wander = self.random.uniform(-self.jitter_s, self.jitter_s) if self.jitter_s else 0.0
        takes = nbytes / self.bytes_per_s if self.bytes_per_s else 0.0
        return max(before, now + max(0.0, self.delay_s + wander)) + takes

    def damaged(self, data: bytes, start: int) -> bytes:
        """What becomes of bytes that begin at `start` of their connection."""
        hit = [at - start for at in self.flip_at if start <= at < start + len(data)]
        if self.flip_rate:
            at = self._next_flip()
            while at < len(data):
                hit.append(at)
                at += 1 + self._next_flip()
        if not hit:
            return data
        damaged = bytearray(data)
        for at in hit:
            damaged[at] ^= 1 << self.random.randrange(8)
        self.flipped += len(hit)
        return bytes(damaged)

    def _next_flip(self) -> int:
        """How many bytes are spared; as if each had its own chance, at the price of one draw."""
        return int(log(1 - self.random.random()) / log(1 - self.flip_rate))


class Stretch:
    """One direction of one connection: reads, splits into pieces, lets each suffer its fate, writes."""

    def __init__(self, line: "Line", way: Way, reader: Reading, writer: Writing) -> None:
        self.line, self.way = line, way
        self._reader, self._writer = reader, writer
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED)
        self._late: set[asyncio.TimerHandle] = set()
        self._written = 0

    def inject(self, data: bytes, delay_s: float = 0.0) -> None:
        """Slip in what nobody sent, or what was sent, later; between two pieces."""
        if delay_s:
            self._late.add(asyncio.get_running_loop().call_later(delay_s, self.inject, data))
        elif not self._writer.is_closing():
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait((0.0, data))

    async def read(self) -> None:
        """Take what comes until its end, which is passed on, too."""
        due, loop = 0.0, asyncio.get_running_loop()
        while data := await self._reader.read(CHUNK):
            if self.way.swallow:
                continue
            for piece in self.line.pieces(self, data):
                due = self.way.due(len(piece), loop.time(), due)
                await self._queue.put((due, piece))
        await self._queue.put((due, b""))

    async def write(self) -> None:
        """Deliver in order, each piece when it is due."""
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await self._queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self.way.opened()
            if not piece:
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                return
            await self._deliver(self.way.damaged(piece, self._written))

    async def _deliver(self, piece: bytes) -> None:
        way, left = self.way, len(piece)
        limit = min((limit for limit in (way.close_after, way.reset_after) if limit >= 0), default=None)
        if limit is not None:
            left = max(0, min(left, limit - self._written))
        step = way.slice_bytes or left
        for start in range(0, left, step or 1):
            self._writer.write(piece[start : min(start + step, left)])
            await self._writer.drain()
            if way.slice_bytes:
                await asyncio.sleep(0)
        self._written += left
        way.passed += left
        if left < len(piece):
            self.line.end(reset=limit == way.reset_after)

    def close(self) -> None:
        """Forget what is late."""
        for timer in self._late:
            timer.cancel()


class Line:
    """One connection across a wire."""

    def __init__(self, wire: "Wire", client: tuple[Reading, Writing], server: tuple[Reading, Writing]) -> None:
        self._writers = (client[1], server[1])
        self._works: list[asyncio.Future[None]] = []
        self._pieces = wire.splitter()
        self.up = Stretch(self, wire.up, client[0], server[1])
        self.down = Stretch(self, wire.down, server[0], client[1])

    def pieces(self, stretch: Stretch, data: bytes) -> list[bytes]:
        """What of these bytes is to be delivered, cut where something may be slipped in."""
        return self._pieces(stretch, data)

    async def run(self) -> None:
        """Carry both directions until both have ended, one has failed, or the line is ended."""
        self._works = [asyncio.ensure_future(work()) for way in (self.up, self.down) for work in (way.read, way.write)]
        try:
            await asyncio.wait(self._works, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.end()
            await asyncio.gather(*self._works, return_exceptions=True)
            self.up.close()
            self.down.close()

    def end(self, *, reset: bool = False) -> None:
        """Close both sockets: in order, or with a reset that each end hears as an error."""
        for work in self._works:
            work.cancel()
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if reset and sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()


class Wire:
    """`async with Wire(port) as wire`: whoever connects to `wire.port` talks to `port`, as well as the wire lets it."""

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target = target
        self.up, self.down = Way(Random(seed)), Way(Random(seed + 1))  # noqa: S311  # a seed must repeat
        self.accepted = 0
        self.lines: set[Line] = set()
        self._works: set[asyncio.Task[None]] = set()
        # bound, never listening: while the listener is closed the port stays ours and refuses, as a dead host's does
        self._placeholder = _bound(0)
        self.port: int = self._placeholder.getsockname()[1]
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._refuse()
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        self._placeholder.close()

    def splitter(self) -> Callable[[Stretch, bytes], list[bytes]]:
        """Make what cuts a connection's bytes into pieces."""
        return lambda _, data: [data]

    async def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        await self._refuse()
        self.reset()

    def reset(self) -> None:
        """Reset every connection; new ones are taken."""
        for line in list(self.lines):
            line.end(reset=True)

    def hold(self) -> None:
        """Let nothing through, either way: half-open for whoever is connected, silence for whoever connects."""
        self.up.hold()
        self.down.hold()

    async def heal(self) -> None:
        """End all faults."""
        self.up.heal()
        self.down.heal()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        listener = _bound(self.port)
        listener.listen(128)
        self._server = await asyncio.start_server(self._take, sock=listener)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await asyncio.sleep(0)

    async def _take(self, reader: Reading, writer: Writing) -> None:
        self.accepted += 1
        work = asyncio.current_task()
        assert work is not None
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        try:
            server = await asyncio.open_connection(HOST, self.target)
        except OSError:  # what the target refuses, the wire refuses
            writer.transport.abort()
            return
        line = Line(self, (reader, writer), server)
        self.lines.add(line)
        try:
            await line.run()
        except asyncio.CancelledError:
            line.end(reset=True)
        finally:
            self.lines.discard(line)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((HOST, port))
    return sock
