"""The NATS library's client, repaired where Baton's promises need it. Each repair says what it repairs.

Written against nats-py 2.16; `tests/contract/test_nats_bus.py` shows when a new version behaves otherwise.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import TimeoutError as NatsTimeout
from nats.protocol import parser

Take = Callable[[str, bytes, str, dict[str, str]], None]
"""Subject, data, reply subject, headers. Never waits, never raises."""
CROWDED: Final = 1 << 16
"""Bytes in the socket's buffer above which writing is left to the library, which waits for the peer."""

_WORD: Final = rb"([^ \t\n]+)[ \t]+"
# the library's own take any white space for the end of a word, but the server lets clients' subjects hold some kinds of
# it: such a message, which any client may send, would end the connection as a breach of the protocol
parser.MSG_RE = re.compile(rb"\AMSG[ \t]+%b%b(%b)?(\d+)\r\n" % (_WORD, _WORD, _WORD))
parser.HMSG_RE = re.compile(rb"\AHMSG[ \t]+%b%b(%b)?(\d+)[ \t]+(\d+)\r\n" % (_WORD, _WORD, _WORD))


class RepairedClient(Client):
    """nats.aio.client.Client, with these differences."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Take] = {}  # by subscription id

    async def listen(self, subject: str, take: Take, *, queue: str = "") -> Subscription:
        """Subscribe; each message is handed over where it is read.

        The library would put it into a queue and wake a task of the subscription, which costs a frame of tokens a turn
        of the event loop. What never waits needs neither, and has no queue to overflow.
        """
        self._takers[self._sid + 1] = take  # before the first message can come
        return await super().subscribe(subject, queue)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Hand a message over; called by the library's parser for each."""
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        take = self._takers.get(sid)
        if take is None or sid not in self._subs:
            return
        try:
            fields: dict[str, Any] = await self._process_headers(headers) or {} if headers else {}
            about, answer = subject.decode(), reply.decode()
        except (ValueError, IndexError) as error:  # a client's bytes; raised from here, it would end the read loop
            await self._error_cb(ValueError(f"a message whose head is malformed was dropped: {error}"))
            return
        take(about, data, answer, fields)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        """Forget a subscription that is over."""
        super()._remove_sub(sid, max_msgs)
        self._takers.pop(sid, None)

    def _buffered(self) -> int:
        writer = getattr(self._transport, "_io_writer", None)  # a websocket has none
        return CROWDED if writer is None else int(writer.transport.get_write_buffer_size())

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002  # the library's
        """Write what waits, at once unless much waits already.

        The library leaves it to a task, which costs every message a turn of the event loop.
        """
        transport = self._transport
        if transport is None or not self.is_connected or self._buffered() >= CROWDED:
            return await super()._flush_pending(force_flush)
        waiting, self._pending, self._pending_data_size = self._pending, [], 0
        # closed is what the read loop is about to find; a lossy pipe loses these
        with contextlib.suppress(RuntimeError):
            transport.writelines(waiting)
        return None

    async def flush(self, timeout: float = 10) -> None:  # noqa: ASYNC109  # the library's name
        """Return once the server has all that was sent before.

        The library writes the ping past the commands that wait to be sent, so its answer may come before the server
        has them: a subscription that was flushed would still miss messages, and a drained one would lose its last.
        """
        deadline = time.monotonic() + timeout
        await self._flush_pending()
        await asyncio.sleep(0)  # the flusher's turn
        while self.pending_data_size > 0 and self.is_connected:
            if time.monotonic() > deadline:
                raise NatsTimeout
            await asyncio.sleep(0.001)
        await super().flush(timeout)  # type: ignore[arg-type]  # a number of seconds

    async def close(self) -> None:
        """Close for good; the library's own gives up half way when the socket breaks meanwhile."""
        try:
            await super().close()
        finally:
            for subscription in self._subs.values():
                subscription._stop_processing()  # noqa: SLF001  # what the library would have come to
            self._subs.clear()
            self._takers.clear()
            self.hang_up()

    def hang_up(self) -> None:
        """Close the socket of a sign-in that was refused; the library only forgets it."""
        if self._transport is not None and not self.is_connected:
            self._transport.close()  # type: ignore[no-untyped-call]
