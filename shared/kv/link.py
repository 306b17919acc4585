"""One connected socket of the KV hand-off, used in turns: on the event loop between pushes, in a thread during one.

Owns the socket. On the loop it never blocks; in a thread it blocks in the kernel, without the GIL, and whoever loses
patience calls `cut`, which wakes the thread at once. Must not know records or tickets.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class PeerLeft(ConnectionError):
    """Raised when the other end, or a `cut` of ours, ended the connection."""


class NotBegun(ConnectionError):
    """Raised when a receiver could not be reached, or left before it answered the opening."""


class Link:
    """A connection. Everything but `cut` belongs to one user at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._cut = False

    async def connect(self, address: object) -> None:
        """Connect the socket. Raises OSError."""
        await asyncio.get_running_loop().sock_connect(self._sock, address)  # type: ignore[arg-type]  # any family's

    async def accept(self) -> socket.socket:
        """The next connection of a listening socket. Raises OSError. A cancellation loses none, as the loop's would."""
        while True:
            await self.readable()
            with suppress(BlockingIOError):
                return self._sock.accept()[0]

    async def readable(self) -> None:
        """Return when there is something to read or the connection ended."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        self.watch(partial(_wake, ready))
        try:
            await ready
        finally:
            self.unwatch()

    def watch(self, callback: Callable[[], object]) -> None:
        """Call back while there is something to read or the connection has ended."""
        if self._cut:
            asyncio.get_running_loop().call_soon(callback)
        else:
            asyncio.get_running_loop().add_reader(self._sock.fileno(), callback)

    def unwatch(self) -> None:
        """End `watch`."""
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())

    async def read(self, nbytes: int, *, first_s: float | None = None, rest_s: float | None = None) -> bytes:
        """Exactly so many bytes: the first within `first_s`, all within `rest_s` of it. None: the caller bounds it.

        Raises PeerLeft, TimeoutError or OSError.
        """
        async with asyncio.timeout(first_s) as limit:
            await self.readable()
            limit.reschedule(None if rest_s is None else asyncio.get_running_loop().time() + rest_s)
            data = b""
            while True:
                with suppress(BlockingIOError):
                    data += self._some(nbytes - len(data))
                if len(data) == nbytes:
                    return data
                await self.readable()

    def read_with_fd(self, nbytes: int) -> tuple[bytes, list[int]]:
        """Whatever has come of so many bytes, and descriptors passed along (at most one; the kernel drops the rest)."""
        data, fds, _, _ = socket.recv_fds(self._sock, nbytes, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        return data, list(fds)

    def say(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send a record from the loop. A peer that does not read the few bytes it is sent is treated as gone."""
        try:
            sent = socket.send_fds(self._sock, [data], list(fds)) if fds else self._sock.send(data)
        except BlockingIOError as error:
            raise PeerLeft("the peer does not read") from error
        if sent != len(data):
            raise PeerLeft("the peer does not read")

    def peer_credentials(self, size: int) -> bytes:
        """Of the process at the other end of a unix socket, as the kernel vouches for them."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)

    def keep_alive(self, seconds: int) -> None:
        """Of TCP: end the connection once the other end's machine has been silent for so long, even if none waits."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", seconds // 2), ("TCP_KEEPINTVL", seconds // 8), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):  # not on every platform
                self._sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, value))

    def cut(self) -> None:
        """End the connection from any thread; a thread blocked in it wakes with PeerLeft. Idempotent."""
        self._cut = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back. Not while a thread is in it."""
        self._cut = True
        self._sock.close()

    # ---- in a thread -------------------------------------------------------------------------------------------------

    def still_wanted(self) -> None:
        """Raise PeerLeft after a `cut`."""
        if self._cut:
            raise PeerLeft("the connection was cut")

    def fill(self, view: memoryview) -> None:
        """Receive exactly into the view. Raises PeerLeft or OSError."""
        filled = 0
        while filled < len(view):
            with view[filled:] as rest:  # released at once: a traceback must not keep staging memory alive
                count = self._sock.recv_into(rest, 0, socket.MSG_WAITALL)
            if not count:
                raise PeerLeft(f"the connection ended {len(view) - filled} bytes early")
            filled += count

    def take(self, nbytes: int) -> bytes:
        """Receive a record. Raises as `fill` does."""
        data = bytearray(nbytes)
        self.fill(memoryview(data))
        return bytes(data)

    def patience(self, seconds: float | None) -> None:
        """Bound each wait of the thread from now on; it ends with TimeoutError. None: only a `cut` ends it."""
        self.still_wanted()
        self._sock.settimeout(seconds)

    def put(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises OSError."""
        self._sock.sendall(data)

    def blocking(self, wanted: bool) -> None:  # noqa: FBT001  named after the socket's own
        """Turn to the thread's way of use, or back."""
        self.still_wanted()
        self._sock.setblocking(wanted)

    def _some(self, nbytes: int) -> bytes:
        data = self._sock.recv(nbytes)
        if not data:
            raise PeerLeft("the peer closed the connection")
        return data


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def aside(threads: ThreadPoolExecutor, link: Link, work: Callable[[], T]) -> T:
    """Run `work`, which uses `link`, in a thread. When cancelled, cut the link and return only once the thread let go.

    That wait is short: the thread is in a system call that the cut ends, or between two chunks.
    """

    def blocking() -> T:
        link.blocking(True)
        result = work()
        link.blocking(False)
        return result

    running = asyncio.get_running_loop().run_in_executor(threads, copy_context().run, blocking)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        link.cut()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled() and running.exception() is not None:
            log.debug("a KV transfer was cut", exc_info=running.exception())
        raise
