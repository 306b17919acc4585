"""The HTTP connections under the entrance: aiohttp, with what it would answer by itself put into OpenAI's form.

Owns the listening socket and its connections. A client that goes away cancels its handler at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import msgspec
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from services.gateway.refusals import error_object
from shared.config import GatewaySettings
from shared.errors import LinkLost

KEEP_ALIVE_S: Final = 75.0
LINGER_S: Final = 5.0
"""For a client that still sends a body which was refused, so that it hears why."""
CLOSE_S: Final = 1.0
BACKLOG: Final = 4096
_SERVER_FAULT: Final = 500

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Connection(web.RequestHandler):
    """One connection. What is no HTTP gets an error body too, and hears nothing of the parser's insides."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = _SERVER_FAULT,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what no route could be asked for."""
        status = super().handle_error(request, status, exc, message).status  # logs it; raises where too late to answer
        failed = status >= _SERVER_FAULT
        words = "the server failed" if failed else "the request is not valid HTTP"
        kind = "server_error" if failed else "invalid_request_error"
        body = msgspec.json.encode(error_object(words, kind, None, None))
        answer = web.Response(status=status, body=body, content_type="application/json")
        answer.force_close()
        return answer


async def listen(handle: Handle, settings: GatewaySettings, stack: AsyncExitStack) -> int:
    """Serve until `stack` closes; the port. Raises LinkLost when the address cannot be had."""
    loop = asyncio.get_running_loop()

    def request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=settings.max_body_bytes)

    server = web.Server(handle, request_factory=request, handler_cancellation=True, loop=loop)

    def connection() -> _Connection:
        return _Connection(server, loop=loop, keepalive_timeout=KEEP_ALIVE_S, lingering_time=LINGER_S)

    try:
        listening = await loop.create_server(connection, settings.host, settings.port, backlog=BACKLOG)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise LinkLost(f"cannot listen on {where}: {error.strerror}; does something else use this port?") from error

    async def close() -> None:
        listening.close()
        server.pre_shutdown()
        await server.shutdown(CLOSE_S)

    stack.push_async_callback(close)
    return int(listening.sockets[0].getsockname()[1])
