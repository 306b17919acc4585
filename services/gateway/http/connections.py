"""One HTTP connection: aiohttp's, with what it would answer by itself put into OpenAI's form, and with deadlines.

Owns what happens on a connection outside any request. A client that goes away cancels its handler at once. A connection
that is closed lives on until its client has taken what was sent before; the crowd sees to it that this takes no longer
than it may.
"""

import asyncio
import logging
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from services.gateway.http.crowd import Crowd, Visit
from services.gateway.http.plain import MAX_HEADERS, MAX_LINE_BYTES, fault_answer, plain_answer
from services.gateway.http.terms import Terms

LINGER_S: Final = 5.0
"""For a client that still sends a body which was refused, so that it hears why."""
LEAVING_S: Final = 1.0
"""For one whose head was refused."""
MAX_HEAD_BYTES: Final = 65_536
MAX_PIPELINED: Final = 8
READ_BYTES: Final = 16_384
"""What is buffered of a body that nobody reads yet, before the client is held."""
_SERVER_FAULT: Final = 500

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """See the module. Reads aiohttp's `_waiter`, which is pending while the next request has not come.

    `_link` is the transport until it is gone: aiohttp forgets its own when it closes it, with bytes still unsent.
    """

    __slots__ = ("_body", "_crowd", "_head_bytes", "_leaving", "_link", "_refused", "_visit")

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
        self._body: StreamReader | None = None
        self._crowd = crowd
        self._visit = visit
        self._head_bytes = 0
        self._leaving = False
        self._link: asyncio.Transport | None = None
        self._refused = False

    @property
    def idle(self) -> bool:
        """Whether it waits for a request. Bytes may come before aiohttp has begun to wait for the first one."""
        return self._request_count == 0 or (self._waiter is not None and not self._waiter.done())

    @property
    def silent(self) -> bool:
        """Whether nothing of a request has come since the last one."""
        return self.idle and not self._head_bytes

    # ---- what the transport says -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._link = cast("asyncio.Transport", transport)
        super().connection_made(transport)
        self._crowd.awaits_head(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio."""
        self._link = None
        self._crowd.gone(self)
        self._visit.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._refused:
            return
        super().data_received(data)
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            self._break_body()
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

    def begins(self, body: StreamReader) -> None:
        """Note the body of the request that is handled from now on."""
        self._body = body

    def _break_body(self) -> None:
        """Let whoever reads a body hear that the rest of it is no HTTP: aiohttp queues that behind the request."""
        bodies = [body for message, body in self._messages if isinstance(message, RawRequestMessage)]
        body = bodies[-1] if bodies else self._body
        if body is not None and not body.is_eof() and body.exception() is None:
            self._crowd.counts.malformed += 1
            body.set_exception(web.RequestPayloadError("a chunk is none"))
            body.feed_eof()  # nobody need wait for the rest of it

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self._crowd.blocked(self)

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        if not self._leaving:
            self._crowd.unblocked(self)

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See aiohttp: serves one request after the other; at its end the connection is closed."""
        try:
            await super().start()
        finally:
            self._leave()

    def force_close(self) -> None:
        """See aiohttp: what has been written still goes out, if the client takes it."""
        super().force_close()
        self._leave()

    def _leave(self) -> None:
        if self._link is not None and not self._leaving:
            self._leaving = True
            self._crowd.blocked(self)

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
        return 0 if self._link is None else self._link.get_write_buffer_size()

    def give_up(self) -> None:
        """See Overstaying."""
        if self._link is not None:
            self._link.abort()

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
        return fault_answer(status, exc)

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401  aiohttp's signature
        """Log what aiohttp could not handle."""
        log.error(*args, **kw)
