"""The door of the HTTP entrance: listens, welcomes connections within the bounds, turns the others away.

Owns the listening sockets and the connections. Accepts by itself, so that a flood is turned away before it costs a
connection's memory or a TLS handshake.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from services.gateway.http.connections import Connection
from services.gateway.http.crowd import PEER_FULL, Crowd, Visit
from services.gateway.http.neighbours import check_neighbours
from services.gateway.http.plain import plain_answer
from services.gateway.http.terms import Terms
from shared.errors import LinkLost, Unavailable
from shared.tasks import Tasks

CLOSE_S: Final = 1.0
BACKLOG: Final = 4096
BATCH: Final = 128
"""Connections accepted at one go; then the streams have their turn."""
PAUSE_S: Final = 0.2
"""After an accept failed for want of files or memory."""
LEAVING: Final = 64
LEAVING_S: Final = 0.5
"""So many of those turned away stay so long, that the reason reaches them; the others are just closed."""

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Door:
    """One per gateway."""

    def __init__(self, handle: Handle, terms: Terms, crowd: Crowd) -> None:
        self.port = 0
        self.crowd = crowd
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._leaving: set[socket.socket] = set()
        self._tasks = Tasks("http door")
        self._pausing: asyncio.TimerHandle | None = None
        self._server = web.Server(handle, request_factory=self._request, handler_cancellation=True, loop=self._loop)

    async def open(self, stack: AsyncExitStack) -> None:
        """Listen until `stack` closes. Raises LinkLost when the address cannot be had."""
        settings = self._terms.settings
        host, port = settings.host, settings.port
        if settings.reuse_port:
            await check_neighbours(host, port, tls=self._terms.tls is not None)
        stack.push_async_callback(self._close)
        try:
            addresses = await self._loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, address in dict.fromkeys((found[0], found[4]) for found in addresses):
                self._sockets.append(
                    _listener(family, (address[0], self.port or port, *address[2:]), settings.reuse_port)
                )
                self.port = int(self._sockets[0].getsockname()[1])
        except OSError as error:
            why = error.strerror or str(error)
            raise LinkLost(f"cannot listen on {host}:{port}: {why}; does something else use this port?") from error
        self._attend()

    def sweep(self) -> None:
        """Close the connections that have overstayed."""
        self.crowd.sweep()

    def drain(self) -> None:
        """Close the connections without a request. Where others listen on the same port, leave new ones to them."""
        if self._terms.settings.reuse_port:
            self._accept_all()
            self._stop_listening()
        for connection in self._server.connections:
            if isinstance(connection, Connection) and connection.silent:
                connection.force_close()

    # ---- welcoming ---------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        self._pausing = None
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _accept_all(self) -> None:
        """Accept what waits now. In a flood more waits always; what the kernel can have kept is enough."""
        for listening in self._sockets:
            for _ in range(BACKLOG // BATCH + 1):
                if not self._accept(listening):
                    break

    def _accept(self, listening: socket.socket) -> bool:
        """Accept what waits, up to a batch; whether more may wait."""
        for _ in range(BATCH):
            try:
                link, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause(error)
                    return False
                continue  # that one client has gone already
            link.setblocking(False)
            self._greet(link, str(address[0]))
        return True

    def _greet(self, link: socket.socket, address: str) -> None:
        visit = self.crowd.admit(address)
        if isinstance(visit, str):
            self._turn_away(link, visit)
            return
        try:
            task = self._tasks.spawn(self._welcome(link, visit), name="welcome")
        except Unavailable:  # closing
            _leave(link, visit)
        else:
            task.add_done_callback(partial(_leave_unless_made, link, visit))

    async def _welcome(self, link: socket.socket, visit: Visit) -> bool:
        """Make a connection of it; whether that succeeded."""
        tls = self._terms.tls
        settings = self._terms.settings
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self._server, self._terms, self.crowd, visit),
                link,
                ssl=tls,
                ssl_handshake_timeout=settings.head_timeout_s if tls else None,
                ssl_shutdown_timeout=settings.send_timeout_s if tls else None,  # the end of an answer goes out in it
            )
        except OSError as error:  # not TLS, an unknown certificate, too slow, gone
            self.crowd.counts.handshakes_failed += 1
            log.debug("a connection was not made", extra={"peer": visit.peer, "error": str(error)[:200]})
            return False
        return True

    def _turn_away(self, link: socket.socket, why: str) -> None:
        """Say why and close, without making it a connection."""
        if self._terms.tls is None and len(self._leaving) < LEAVING:
            code = "too_many_connections" if why is PEER_FULL else "server_overloaded"
            with suppress(OSError):
                link.send(plain_answer(429, why, "retry-after: 1", f"x-baton-reason: {code}", code=code))
                link.shutdown(socket.SHUT_WR)
                self._leaving.add(link)
                self._loop.call_later(LEAVING_S, self._let_go, link)
                return
        link.close()

    def _let_go(self, link: socket.socket) -> None:
        self._leaving.discard(link)
        with suppress(OSError):  # what lies unread would turn the closing into a reset, and lose the reason
            link.recv(1 << 20)
        link.close()

    def _pause(self, error: OSError) -> None:
        """Leave the next ones in the kernel's queue for a moment: nothing would come of asking again at once."""
        self.crowd.counts.accepts_failed += 1
        log.error("cannot accept connections for a moment", extra={"error": error.strerror, "open": self.crowd.size})
        for listening in self._sockets:
            self._loop.remove_reader(listening)
        if self._pausing is None:
            self._pausing = self._loop.call_later(PAUSE_S, self._attend)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _stop_listening(self) -> None:
        if self._pausing is not None:
            self._pausing.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()

    async def _close(self) -> None:
        self._stop_listening()
        await self._tasks.close()
        self._server.pre_shutdown()
        await self._server.shutdown(CLOSE_S)
        for link in list(self._leaving):
            self._let_go(link)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        if isinstance(protocol, Connection):
            protocol.begins(payload)
        most = self._terms.settings.max_body_bytes
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=most)


def _leave(link: socket.socket, visit: Visit) -> None:
    visit.leave()
    link.close()


def _leave_unless_made(link: socket.socket, visit: Visit, welcome: "asyncio.Task[bool]") -> None:
    """Also where the task was cancelled before it began."""
    if welcome.cancelled() or welcome.exception() is not None or not welcome.result():
        _leave(link, visit)


def _listener(family: int, address: tuple[str | int, ...], reuse_port: bool) -> socket.socket:  # noqa: FBT001
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
