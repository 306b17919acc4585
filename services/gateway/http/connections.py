"""One HTTP connection: aiohttp's, with what it would answer by itself put into OpenAI's form, and with deadlines.

Owns what happens on a connection outside any request. A client that goes away cancels its handler at once.
"""

import asyncio
import logging
import secrets
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError, LineTooLong

from services.gateway.http.crowd import Crowd, Visit
from services.gateway.http.terms import Terms
from services.gateway.refusals import error_object

LINGER_S: Final = 5.0
"""For a client that still sends a body which was refused, so that it hears why."""
LEAVING_S: Final = 1.0
"""For one whose head was refused."""
MAX_HEADERS: Final = 100
MAX_LINE_BYTES: Final = 8190
MAX_HEAD_BYTES: Final = 65_536
MAX_PIPELINED: Final = 8
READ_BYTES: Final = 16_384
"""What is buffered of a body that nobody reads yet, before the client is held."""
_SERVER_FAULT: Final = 500

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """See the module. Reads aiohttp's `_waiter`: it is pending exactly while no request has come."""

    __slots__ = ("_crowd", "_head_bytes", "_refused", "_visit")

    def __init__(self, server: web.Server, terms: Terms, crowd: Crowd, visit: Visit) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=terms.settings.keep_alive_s,
            lingering_time=LINGER_S,
            max_headers=MAX_HEADERS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            read_bufsize=READ_BYTES,
            auto_decompress=False,  # a few bytes must not become gigabytes; see `bodies`
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own servers pass it too
        )
        self._crowd = crowd
        self._visit = visit
        self._head_bytes = 0
        self._refused = False

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    # ---- what the transport says -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._crowd.awaits_head(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio."""
        self._crowd.gone(self)
        self._visit.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._refused:
            return
        super().data_received(data)
        if not self.idle:
            self._head_bytes = 0
            self._crowd.has_head(self)
            if len(self._messages) > MAX_PIPELINED:
                self._crowd.counts.pipelines_cut += 1
                self._refuse(400, f"more than {MAX_PIPELINED} requests are waiting on this connection; open others")
        elif data:
            self._crowd.awaits_head(self)
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._crowd.counts.heads_too_large += 1
                self._refuse(400, f"the request's headers are larger than {MAX_HEAD_BYTES} bytes, the limit")

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._crowd.blocked(self)

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        self._crowd.unblocked(self)

    # ---- what the crowd says -----------------------------------------------------------------------------------------

    def head_is_late(self) -> None:
        """See Overstaying. Who has said nothing is told nothing."""
        if not self.idle:
            return
        if self._head_bytes:
            self._refuse(408, "the request's headers did not come in time")
        else:
            self.force_close()

    def unread(self) -> int:
        """See Overstaying."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def give_up(self) -> None:
        """See Overstaying."""
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self, status: int, words: str) -> None:
        """Say why and close. An answer that is being written is broken off: nothing can be said in its midst.

        What still comes is read and dropped for a moment: closing at once would reset the connection, and the client
        would not hear why.
        """
        self._crowd.has_head(self)
        if self.transport is None or not self.idle:
            self.force_close()
            return
        self._refused = True
        self.transport.write(plain_answer(status, words))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._loop.call_later(LEAVING_S, self.force_close)

    # ---- what aiohttp would say --------------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = _SERVER_FAULT,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  it may quote what was sent
    ) -> web.StreamResponse:
        """Answer what no route could be asked for."""
        failed = status >= _SERVER_FAULT
        if failed:
            log.error("a connection failed inside the gateway", exc_info=exc)
        else:
            self._crowd.counts.malformed += 1
            log.debug("not HTTP", extra={"peer": self._visit.peer, "error": str(exc)[:200]})
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; no other can follow")
        words = "the server failed" if failed else _fault(exc)
        kind = "server_error" if failed else "invalid_request_error"
        answer = web.Response(status=status, body=_body(words, kind), content_type="application/json")
        answer.headers.update({"x-request-id": _new_id(), "server": "baton"})
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401  aiohttp's signature
        """Log what aiohttp could not handle."""
        log.error(*args, **kw)


def plain_answer(status: int, words: str, *headers: str, code: str | None = None) -> bytes:
    """Make a whole HTTP answer, for where there is no request to answer; the connection closes after it."""
    reason = {400: "Bad Request", 408: "Request Timeout", 429: "Too Many Requests"}[status]
    kind = "server_overloaded" if status == 429 else "invalid_request_error"  # noqa: PLR2004
    body = _body(words, kind, code)
    head = [
        f"HTTP/1.1 {status} {reason}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"x-request-id: {_new_id()}",
        "server: baton",
        *headers,
        "Connection: close",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _body(words: str, kind: str, code: str | None = None) -> bytes:
    return msgspec.json.encode(error_object(words, kind, None, code))


def _new_id() -> str:
    return f"req-{secrets.token_hex(16)}"


def _fault(error: BaseException | None) -> str:
    """Say what was wrong, without what was sent."""
    if isinstance(error, LineTooLong):
        return f"the request is not acceptable HTTP: a line or header is longer than {MAX_LINE_BYTES} bytes"
    if isinstance(error, HttpProcessingError) and "Too many headers" in str(error):
        return f"the request is not acceptable HTTP: more than {MAX_HEADERS} headers"
    if isinstance(error, BadStatusLine):
        return "the request is not valid HTTP: its first line is none"
    return "the request is not valid HTTP"
