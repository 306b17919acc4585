"""Connections that end while their clients take nothing, or have said only half: they go in time and lose no answer."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from services.gateway.http.crowd import Crowd
from services.gateway.http.server import BACKLOG, Door
from services.gateway.http.terms import Terms
from shared.config import GatewaySettings
from tests.contract.gateway.certificates import Authority

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TAIL = 30_000
"""Bytes of an answer that stay with the gateway below the mark at which writing pauses."""


def on_every_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on uvloop, as in production, and on asyncio's own loop, as where there is no uvloop."""

    def run(loop: str, tmp_path: Path) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test(tmp_path) if signature(test).parameters else test())

    return pytest.mark.parametrize("loop", LOOPS)(run)


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    """Say as many bytes as the path asks for."""
    return web.Response(body=b"x" * int(request.path.strip("/")))


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[Door]:
    given = GatewaySettings(
        **{"host": "127.0.0.1", "port": 0, "send_timeout_s": 0.4, "head_timeout_s": 0.4, **settings}
    )
    async with AsyncExitStack() as stack:
        terms = Terms.read(given)
        door = Door(answer, terms, Crowd(terms))
        await door.open(stack)
        yield door


async def swept(door: Door, condition: Callable[[], bool]) -> bool:
    """Sweep until something is so; whether it came to it in a time far above all deadlines."""
    for _ in range(60):
        door.sweep()
        if condition():
            return True
        await asyncio.sleep(0.05)
    return False


def connect(door: Door) -> socket.socket:
    """Open a connection that takes little."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect(("127.0.0.1", door.port))
    link.setblocking(False)
    return link


async def tighten(door: Door) -> None:
    """Let the kernel keep little of what the gateway sends."""
    while not door._server.connections:  # noqa: ASYNC110  ends with the test's time at the latest
        await asyncio.sleep(0.01)
    for connection in door._server.connections:
        assert connection.transport is not None
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def ask(size: int, *headers: str) -> bytes:
    return "\r\n".join([f"GET /{size} HTTP/1.1", "Host: x", *headers]).encode() + b"\r\n\r\n"


@on_every_loop
async def test_the_end_of_an_answer_that_nobody_takes_keeps_no_place() -> None:
    async with opened() as door:
        with connect(door) as link:
            await tighten(door)
            link.send(ask(TAIL, "Connection: close"))
            assert await swept(door, lambda: door.crowd.size == 0)


@on_every_loop
async def test_a_client_that_sends_ahead_and_takes_nothing_keeps_no_place() -> None:
    async with opened() as door:
        with connect(door) as link:
            await tighten(door)
            link.send(ask(1_000_000))
            await asyncio.sleep(0.1)
            link.send(ask(1) * 20)
            assert await swept(door, lambda: door.crowd.size == 0)
            assert door.crowd.counts.pipelines_cut == 1


@on_every_loop
async def test_an_idle_connection_whose_last_answer_nobody_took_keeps_no_place() -> None:
    async with opened(keep_alive_s=0.2) as door:
        with connect(door) as link:
            await tighten(door)
            link.send(ask(TAIL))
            assert await swept(door, lambda: door.crowd.size == 0)


@on_every_loop
async def test_a_slow_client_gets_the_end_of_its_answer_after_the_connection_has_been_closed() -> None:
    async with opened(send_timeout_s=1.0) as door:
        with connect(door) as link:
            await tighten(door)
            link.send(ask(TAIL, "Connection: close"))
            got = b""
            while True:  # a thousand bytes a tenth of a second would be cut, were it by the whole time
                await asyncio.sleep(0.05)
                door.sweep()
                try:
                    more = link.recv(1500)
                except BlockingIOError:
                    continue
                if not more:
                    break
                got += more
            assert got.endswith(b"x" * TAIL)


@on_every_loop
async def test_a_slow_client_gets_the_end_of_its_answer_over_tls_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.sign("gateway")
    context = ssl.create_default_context(cafile=str(authority.file))
    async with opened(tls_cert=str(cert), tls_key=str(key), send_timeout_s=5.0) as door:
        link = connect(door)
        reader, writer = await asyncio.open_connection(sock=link, ssl=context, server_hostname="127.0.0.1", limit=1024)
        await tighten(door)
        writer.transport.pause_reading()
        writer.write(ask(TAIL, "Connection: close"))
        await asyncio.sleep(1.8)  # longer than a handshake's ending may take
        writer.transport.resume_reading()
        async with asyncio.timeout(5):
            assert (await reader.read()).endswith(b"x" * TAIL)
        writer.close()


@on_every_loop
async def test_half_a_head_that_comes_with_the_connection_is_late_like_any_other(tmp_path: Path) -> None:
    cert, key = (authority := Authority(tmp_path)).sign("gateway")
    context = ssl.create_default_context(cafile=str(authority.file))
    for tls in ({}, {"tls_cert": str(cert), "tls_key": str(key)}):
        async with opened(**tls) as door:
            with socket.create_connection(("127.0.0.1", door.port)) as link:
                if tls:
                    link.setblocking(False)
                    tunnel = await handshake(context, link)
                    await asyncio.get_running_loop().sock_sendall(link, tunnel(ask(1)[:-2]))
                else:
                    link.send(ask(1)[:-2])
                assert await swept(door, lambda: door.crowd.counts.heads_late == 1), tls


async def handshake(context: ssl.SSLContext, link: socket.socket) -> Callable[[bytes], bytes]:
    """Do all of a handshake but its client's last flight; what is made of bytes then goes out together with that."""
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tunnel = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while True:
        try:
            tunnel.do_handshake()
        except ssl.SSLWantReadError:
            await loop.sock_sendall(link, outgoing.read())
            incoming.write(await loop.sock_recv(link, 65_536))
        else:
            break

    def made(data: bytes) -> bytes:
        tunnel.write(data)
        return outgoing.read()

    return made


@on_every_loop
async def test_a_drain_lets_a_request_come_whose_head_has_begun() -> None:
    async with opened(head_timeout_s=5.0) as door:
        with socket.create_connection(("127.0.0.1", door.port)) as link, connect(door) as silent:
            link.setblocking(False)
            link.send(ask(1)[:-2])
            assert await swept(door, lambda: any(one._head_bytes for one in door._server.connections))  # type: ignore[attr-defined]
            door.drain()
            assert await swept(door, lambda: door.crowd.size == 1)
            assert silent.recv(1) == b""
            link.send(b"\r\n")
            async with asyncio.timeout(5):
                assert b"200 OK" in await asyncio.get_running_loop().sock_recv(link, 1000)


class Endless:
    """A listening socket on which there is always one more."""

    def __init__(self) -> None:
        self.accepted = 0

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.accepted += 1
        assert self.accepted < 3 * BACKLOG
        one, other = socket.socketpair()
        other.close()
        return one, ("127.0.0.1", 1)

    def fileno(self) -> int:
        return -1


@on_every_loop
async def test_a_flood_does_not_hold_up_a_drain() -> None:
    async with opened(max_connections=1) as door:
        door._sockets.append(endless := Endless())  # type: ignore[arg-type]
        door._accept_all()
        door._sockets.remove(endless)  # type: ignore[arg-type]
        assert endless.accepted >= BACKLOG
