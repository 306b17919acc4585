"""What is checked of an HTTP request before anything is done for it, and what signs its answer."""

import asyncio
from typing import Final

import msgspec
from aiohttp import HttpVersion11, web

from services.gateway.access.caller import Caller
from services.gateway.api.parameters import Seconds
from services.gateway.desk import Desk
from shared.config import GatewaySettings
from shared.errors import BadRequest, TooLarge

ID: Final = web.RequestKey("id", str)
"""Of a request: the client's own, or one made here."""
TIMEOUT_HEADER: Final = "x-baton-timeout"


def signature(request: web.BaseRequest) -> dict[str, str]:
    """Make the headers that every answer carries."""
    return {"x-request-id": request[ID], "server": "baton"}


async def identify(request: web.BaseRequest, desk: Desk) -> Caller:
    """Say who the bearer of the key is. Raises Unauthorised."""
    scheme, _, key = request.headers.get("authorization", "").strip().partition(" ")
    return await desk.identify(key.strip() if scheme.lower() == "bearer" else "")


def timeout_of(request: web.BaseRequest) -> float | None:
    """Read how long the client will wait for its answer, in seconds. Raises BadRequest."""
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    try:
        return msgspec.convert(given, Seconds, strict=False)
    except msgspec.ValidationError:
        raise BadRequest(f"{TIMEOUT_HEADER} must be a number of seconds above 0", TIMEOUT_HEADER) from None


async def read_body(request: web.BaseRequest, settings: GatewaySettings) -> bytes:
    """Read the body within its bounds. Raises TooLarge before all of it is read, or HTTPRequestTimeout."""
    if (request.content_length or 0) > settings.max_body_bytes:
        raise too_large(settings)
    if request.headers.get("expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
    try:
        async with asyncio.timeout(settings.send_timeout_s):
            return await request.read()  # bounded by the application's max_body_bytes where no length was given
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def too_large(settings: GatewaySettings) -> TooLarge:
    """Make the refusal of a body above the limit."""
    return TooLarge(f"the body is larger than {settings.max_body_bytes} bytes, the limit")
