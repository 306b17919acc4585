"""One connection at the receiver: openings in, payloads through a thread into staging, answers out.

Owns the link from accept to close. Between pushes it waits on the event loop, so a silent peer costs no thread.
Whatever the peer does ends in an answer or in a closed connection, and never reaches another connection.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol

from shared.errors import BatonError, Draining, KvRefused, MalformedMessage
from shared.kv import tcp
from shared.kv.block_fixed import BlockFixed
from shared.kv.layout import CHECKSUM_BYTES
from shared.kv.link import Link, aside
from shared.kv.mooncake_receiver import Landing
from shared.kv.striped_receiver import KINDS, Striped
from shared.kv.tickets import Push, Tickets
from shared.kv.wire import OPENING_BYTES, Answer, Kind, Opening, answer_for, pack_answer, refusal

IDLE_S: Final = 120.0
"""How long a connection may wait for its next push; the sender opens another when it needs one."""
RECORD_S: Final = 5.0
"""How long a new connection's first record may take, and the rest of any record once its first byte has come."""

log = logging.getLogger(__name__)


class PeerMemory(Protocol):
    """A sender's memory, out of which its payloads are copied: this host's, or a device's."""

    def covers(self, offset: int, nbytes: int) -> bool:
        """Whether the range lies inside."""
        ...

    def copy(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> bytes:
        """In a thread: copy the payload into our own staging; the checksum of the copy. Raises KvRefused."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


Welcome = Callable[[Link, float], Awaitable[PeerMemory]]
"""Receives a sender's memory at the start of a connection, within so many seconds."""


class Intake:
    """What all connections of a receiver share: the tickets, the threads, and who is idle (oldest first)."""

    def __init__(
        self,
        tickets: Tickets,
        threads: ThreadPoolExecutor,
        max_idle: int,
        striped: Striped,
        landing: Landing | None = None,
        *,
        blocks: BlockFixed | None = None,
    ) -> None:
        self._tickets = tickets
        self._threads = threads
        self._max_idle = max_idle
        self._striped = striped
        self._landing = landing
        self._blocks = blocks
        self._idle: dict[Link, None] = {}

    async def serve(self, link: Link, welcome: Welcome | None) -> None:
        """Talk to one peer until it leaves, misbehaves or is idle for too long.

        `welcome` hears of the memory that its payloads lie in; without, they come over the link.
        """
        memory: PeerMemory | None = None
        try:
            self._waits(link)
            if welcome is not None:
                memory = await welcome(link, RECORD_S)
                link.say(pack_answer(Answer.GO))
            patience = RECORD_S
            while True:
                self._waits(link)
                data = await link.read(OPENING_BYTES, first_s=patience, rest_s=RECORD_S)
                self._idle.pop(link, None)
                await self._take_in(link, Opening.parse(data), memory)
                patience = IDLE_S
        except (KvRefused, MalformedMessage) as error:
            log.warning("a KV push was refused: %s", error)
            _say_no(link, error)
        except OSError as error:  # TimeoutError and PeerLeft are such
            log.debug("a KV connection ended: %s", error)
        finally:
            self._idle.pop(link, None)
            if memory is not None:
                memory.close()
            link.close()

    async def _take_in(self, link: Link, opening: Opening, memory: PeerMemory | None) -> None:
        if opening.kind is Kind.WRITE and memory is None and self._landing is not None:
            await self._landing.take_in(link, opening)
        elif opening.kind in KINDS and memory is None:
            await self._striped.take_in(link, opening)
        else:
            await self._take_whole(link, opening, memory)

    async def _take_whole(self, link: Link, opening: Opening, memory: PeerMemory | None) -> None:
        if opening.kind is not Kind.PUSH or (memory is None and opening.offset):
            raise MalformedMessage("KV push", OPENING_BYTES, f"{opening.kind.name} at {opening.offset}")
        push = self._tickets.claim(opening, link.cut)
        error: BatonError | None = Draining("the KV receiver is closing")  # unless told otherwise below
        try:
            if memory is not None and not memory.covers(opening.offset, opening.length):
                raise refusal(Answer.MEMORY, "the range lies outside")
            await aside(self._threads, link, partial(self._transfer, link, push, opening, memory))
            error = None
        except KvRefused as refused:
            error = refused
            raise
        except OSError as lost:
            error = KvRefused("length", f"the KV push of {push.key} broke off: {lost}")
            raise
        finally:
            push.end(error)

    def _transfer(self, link: Link, push: Push, opening: Opening, memory: PeerMemory | None) -> None:
        """In a thread: let the payload come, verify it where it lies, answer. Raises KvRefused or OSError."""
        view, blocks = push.view, self._blocks
        link.put(pack_answer(Answer.GO))
        if memory is None:
            digest = tcp.receive(link, view) if blocks is None else blocks.receive(link, view)
        elif blocks is None:
            digest = memory.copy(opening.offset, view, link.still_wanted)
        else:
            digest = blocks.fetch(link, memory, opening.offset, view)
        if not hmac.compare_digest(digest, link.take(CHECKSUM_BYTES)):
            raise refusal(Answer.CHECKSUM)
        link.put(pack_answer(Answer.DONE))

    def _waits(self, link: Link) -> None:
        """Note that the link is idle; at the bound the one that has been so for longest makes room."""
        if link not in self._idle and len(self._idle) >= self._max_idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.cut()
        self._idle[link] = None


def _say_no(link: Link, error: KvRefused | MalformedMessage) -> None:
    try:
        link.say(pack_answer(answer_for(error)))
    except OSError as gone:
        log.debug("nobody heard the refusal: %s", gone)
