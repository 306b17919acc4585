"""A payload that comes in parts, over several TCP connections at once: the receiver's side.

Owns who belongs to which push from its first connection's opening to its end. Only the ticket lets a connection join,
each part comes once, and whichever of them fails, or the push's deadline, ends all. Must not release staging: the push
ends after the last thread has let go of it.
"""

import asyncio
import hmac
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from shared.errors import BatonError, Draining, KvRefused, MalformedMessage
from shared.kv import tcp
from shared.kv.layout import CHECKSUM_BYTES
from shared.kv.link import Link, PeerLeft, aside
from shared.kv.stripes import part
from shared.kv.tickets import Push, Tickets
from shared.kv.wire import OPENING_BYTES, Answer, Kind, Opening, pack_answer, refusal
from shared.tasks import unbroken

KINDS: Final = (Kind.STRIPED, Kind.STRIPE)


class _Group:
    """The connections of one push. Used on the event loop's thread, and cut from wherever the push is."""

    def __init__(self, first: Link, parts: int) -> None:
        self._first = first
        self.parts = parts
        self._missing = set(range(1, parts))  # have not come
        self._joined: dict[int, Link] = {}  # are coming
        self.first_moves = True
        self.error: Exception | None = None
        self._changed = asyncio.Event()

    def cut(self) -> None:
        """Nobody waits for the payload any more."""
        self._first.cut()
        self.fail(PeerLeft("the connection was cut"))

    def fail(self, error: Exception) -> None:
        """End the parts that still come, and take no more. The first one, once it is here, is left to hear of it."""
        self.error = self.error or error
        if self.first_moves:
            self._first.cut()
        self._missing.clear()
        for link in self._joined.values():
            link.cut()
        self._changed.set()

    def join(self, index: int, link: Link) -> None:
        """Let a part come. Raises KvRefused where it is none that has not come yet."""
        if index not in self._missing:
            raise refusal(Answer.TICKET, f"part {index} is not waited for")
        self._missing.discard(index)
        self._joined[index] = link

    def leave(self, index: int, error: Exception | None) -> None:
        """Nobody writes the part any more; without an error it is here, and verified."""
        del self._joined[index]
        if error is not None:
            self.fail(error)
        self._changed.set()

    async def others(self) -> None:
        """Return when the other parts are here, too. Raises what one of them failed with."""
        while (self._missing or self._joined) and self.error is None:
            self._changed.clear()
            await self._changed.wait()
        if self.error is not None:
            raise self.error

    async def empty(self) -> None:
        """Return when no part but the first is written any more."""
        while self._joined:
            self._changed.clear()
            await self._changed.wait()


class Striped:
    """Takes in what comes in parts, over `most` connections at once."""

    def __init__(self, tickets: Tickets, threads: ThreadPoolExecutor, most: int) -> None:
        self._tickets = tickets
        self._threads = threads
        self._most = most
        self._groups: dict[Push, _Group] = {}

    async def take_in(self, link: Link, opening: Opening) -> None:
        """One part from its opening to the answer. Raises KvRefused, MalformedMessage or OSError."""
        if opening.kind is Kind.STRIPED:
            await self._first(link, opening)
        else:
            await self._another(link, opening)

    async def _first(self, link: Link, opening: Opening) -> None:
        """The part whose connection opens the push, and hears how all of it ended."""
        if not 1 < opening.offset <= self._most:
            raise MalformedMessage("KV push", OPENING_BYTES, f"in {opening.offset} parts")
        group = _Group(link, opening.offset)
        push = self._tickets.claim(opening, group.cut)
        error: BatonError | None = Draining("the KV receiver is closing")  # unless told otherwise below
        self._groups[push] = group
        try:
            try:
                await aside(self._threads, link, partial(_receive, link, push, group.parts, 0))
            finally:
                group.first_moves = False
            link.watch(partial(group.fail, PeerLeft("the sender left")))  # it has nothing to say until it is answered
            try:
                await group.others()
            finally:
                link.unwatch()
            link.say(pack_answer(Answer.DONE))
            error = None
        except KvRefused as refused:
            error = refused
            raise
        except OSError as lost:
            broke = KvRefused("length", f"the KV push of {push.key} broke off: {lost}")
            error = group.error if isinstance(group.error, KvRefused) else broke
            raise
        finally:
            del self._groups[push]
            if error is not None:
                group.fail(error)
            await unbroken(group.empty())
            push.end(error)

    async def _another(self, link: Link, opening: Opening) -> None:
        """A part whose connection joins a push."""
        push, group = self._joining(opening)
        index = opening.offset
        group.join(index, link)
        error: Exception | None = PeerLeft("the KV receiver is closing")
        try:
            await aside(self._threads, link, partial(_receive, link, push, group.parts, index))
            link.say(pack_answer(Answer.DONE))
            error = None
        except (KvRefused, OSError) as failed:
            error = failed
            raise
        finally:
            group.leave(index, error)

    def _joining(self, opening: Opening) -> tuple[Push, _Group]:
        """The push that an opening belongs to. Raises KvRefused."""
        found = None
        for push, group in self._groups.items():  # every one, and each in constant time, as with tickets
            same = hmac.compare_digest(push.ticket, opening.ticket), hmac.compare_digest(push.mark, opening.request)
            if all(same):
                found = push, group
        if found is None:
            raise refusal(Answer.TICKET)
        if opening.length != found[0].nbytes:
            raise refusal(Answer.LENGTH, f"{opening.length} bytes instead of {found[0].nbytes}")
        return found


def _receive(link: Link, push: Push, parts: int, index: int) -> None:
    """In a thread: let one part come, and verify it where it lies. Raises KvRefused or OSError."""
    start, stop = part(push.nbytes, parts, index)
    link.put(pack_answer(Answer.GO))
    with push.view[start:stop] as mine:
        digest = tcp.receive(link, mine)
    if not hmac.compare_digest(digest, link.take(CHECKSUM_BYTES)):
        raise refusal(Answer.CHECKSUM)
