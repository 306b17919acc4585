"""What is read of an HTTP request before anything is done for it, and what signs its answer.

Owns the bounds on bodies: size, time, rate, and how much of them is held at once.
"""

import asyncio
from typing import Final

import msgspec
from aiohttp import HttpVersion11, StreamReader, web

from services.gateway.access.caller import Caller
from services.gateway.api.parameters import Seconds
from services.gateway.desk import Desk
from services.gateway.http.access_log import ENTRY
from services.gateway.http.terms import Terms
from shared.config import GatewaySettings
from shared.errors import BadRequest, Overloaded, TooLarge

TIMEOUT_HEADER: Final = "x-baton-timeout"
GRACE_S: Final = 10.0
"""Until then a body may come at any rate."""
FROM_FORMS: Final = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""What any web page may send anywhere without asking first."""


def signature(request: web.BaseRequest) -> dict[str, str]:
    """Make the headers that every answer carries."""
    entry = request[ENTRY]
    return {"x-request-id": entry.id, "server": "baton", **entry.more}


async def identify(request: web.BaseRequest, desk: Desk) -> Caller:
    """Say who the bearer of the key is. Raises Unauthorised."""
    scheme, _, key = request.headers.get("authorization", "").strip().partition(" ")
    caller = await desk.identify(key.strip() if scheme.lower() == "bearer" else "")
    request[ENTRY].caller = caller
    return caller


def timeout_of(request: web.BaseRequest) -> float | None:
    """Read how long the client will wait for its answer, in seconds. Raises BadRequest."""
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    try:
        return msgspec.convert(given, Seconds, strict=False)
    except msgspec.ValidationError:
        raise BadRequest(f"{TIMEOUT_HEADER} must be a number of seconds above 0", TIMEOUT_HEADER) from None


class Bodies:
    """Reads them, all of one gateway's."""

    def __init__(self, terms: Terms) -> None:
        self.held = 0  # bytes of bodies that are not whole yet
        self.slow = 0  # bodies that did not come with their head
        self._terms = terms

    async def read(self, request: web.BaseRequest) -> bytes:
        """Read a body within its bounds.

        Raises BadRequest, TooLarge before all of it is read, Overloaded, or HTTPRequestTimeout.
        """
        try:
            return await self._read(request)
        except web.RequestPayloadError:  # of the connection, where its bytes are no HTTP any more
            raise BadRequest("the body is not valid HTTP: it comes in chunks, and one of them is none") from None

    async def _read(self, request: web.BaseRequest) -> bytes:
        settings = self._terms.settings
        if (request.content_length or 0) > settings.max_body_bytes:
            raise too_large(settings)
        _check_form(request)
        await _go_ahead(request)
        content = request.content
        if content.is_eof():  # the usual case: it came with the head
            body = content.read_nowait()
            if len(body) > settings.max_body_bytes:
                raise too_large(settings)
            return body
        if self.slow >= max(1, settings.max_streams // 2):
            raise Overloaded(f"{self.slow} requests are still being sent, as many as this gateway reads at once")
        self.slow += 1
        try:
            return await self._read_slowly(content, settings)
        finally:
            self.slow -= 1

    async def _read_slowly(self, content: StreamReader, settings: GatewaySettings) -> bytes:
        loop = asyncio.get_running_loop()
        began, body = loop.time(), bytearray()
        try:
            async with asyncio.timeout(min(GRACE_S, settings.body_timeout_s)) as bound:
                while piece := await content.readany():
                    self.held += len(piece)
                    body += piece
                    if len(body) > settings.max_body_bytes:
                        raise too_large(settings)
                    if self.held > settings.max_body_total:
                        raise Overloaded("the requests that are being sent are together as large as this gateway takes")
                    earned_s = GRACE_S + len(body) / settings.body_min_rate
                    bound.reschedule(began + min(settings.body_timeout_s, earned_s))
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        finally:
            self.held -= len(body)
        return bytes(body)


def too_large(settings: GatewaySettings) -> TooLarge:
    """Make the refusal of a body above the limit."""
    return TooLarge(f"the body is larger than {settings.max_body_bytes} bytes, the limit")


def _check_form(request: web.BaseRequest) -> None:
    """Refuse by name what we would misread. Raises BadRequest."""
    headers = request.headers
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise BadRequest("content-encoding is not supported on requests; send the body as it is", "content-encoding")
    kind = headers.get("content-type", "").lower()
    if kind in ("", "application/json"):
        return
    charset = request.charset
    if charset is not None and charset.lower() not in ("utf-8", "utf8"):
        raise BadRequest("the charset in content-type must be utf-8", "content-type")
    if "origin" in headers and request.content_type in FROM_FORMS:
        raise BadRequest("content-type must be application/json when a web page calls", "content-type")


async def _go_ahead(request: web.BaseRequest) -> None:
    """Ask for the body where the client waits to be asked. Raises BadRequest."""
    expected = request.headers.get("expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.strip().lower() != "100-continue":
        raise BadRequest("expect may be 100-continue and nothing else", "expect")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
