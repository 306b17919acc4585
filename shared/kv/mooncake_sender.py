"""Prefill's end of a push by Mooncake: asks over a connection of ours where to write, writes, and says when it is over.

Owns these connections, the writes under way and the threads that look after them. Must not know what a buffer means.

A write that has begun cannot be cut. So when its push is cancelled or overdue, `push` ends at once and the write is
looked after to its end without it: the range stays pinned, since the engine still reads it, and the connection stays
open, since the receiver keeps its range for as long, or until it hears the word that ends every write (see
`wire.Outcome`). Each such write counts against the bound of all; at the bound a push goes another way.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from shared.errors import MalformedMessage
from shared.failpoints import failpoint
from shared.kv import tcp
from shared.kv.arena import Range
from shared.kv.layout import CHECKSUM_BYTES, checksum
from shared.kv.link import Link, NotBegun, PeerLeft
from shared.kv.mooncake import Mooncake, Place
from shared.kv.pool import Pool
from shared.kv.wire import (
    ADDRESS_BYTES,
    ANSWER_BYTES,
    Answer,
    Opening,
    Outcome,
    pack_word,
    parse_address,
    parse_answer,
    refusal,
)
from shared.messages import Endpoint
from shared.tasks import Tasks

BEGIN_S: Final = 2.0
"""How long a receiver may take to answer an opening, and its engine to be reached, before the next way is tried."""
DOUBT_S: Final = 60.0
"""An endpoint by which a write did not come to a good end is passed over for so long."""
CLOSE_S: Final = 5.0
_FIRST_LOOK_S: Final = 0.0002
_LONGEST_LOOK_S: Final = 0.002
_MAX_DOUBTED: Final = 1024

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Write:
    """One write and what it holds."""

    link: Link
    endpoint: Endpoint
    segment: str
    staging: Range
    view: memoryview  # of the staging, and good after its release
    target: int
    wanted: bool = True


class Writes:
    """All writes of a sender by one engine, no more than `limit` at once."""

    def __init__(self, mooncake: Mooncake, limit: int) -> None:
        self._mooncake = mooncake
        self._limit = limit
        # twice, since one that asks an engine in vain takes long
        self._threads = ThreadPoolExecutor(2 * limit, thread_name_prefix="kv-mooncake")
        self._tasks = Tasks("kv writes", limit=2 * limit)  # some may have ended and still count
        self._carrying: set[asyncio.Task[Outcome]] = set()
        self._pool = Pool(limit)
        self._doubted: dict[str, float] = {}  # monotonic; address -> until when
        self._writes: set[_Write] = set()  # whose ranges are pinned
        self._asking = 0
        self._closing = threading.Event()

    @property
    def under_way(self) -> int:
        """Count the writes under way, those that nobody waits for included."""
        return len(self._writes)

    @property
    def links(self) -> int:
        """Connections to receivers, used and kept."""
        return len(self._pool) + len(self._writes) + self._asking

    def usable(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint is of our protocol, not in doubt, and no write hangs there."""
        place = Place.parse(endpoint.address)
        if place is None or place.protocol != self._mooncake.protocol:
            return False
        if any(write.endpoint == endpoint and not write.wanted for write in self._writes):
            return False
        return self._doubted.get(endpoint.address, 0.0) <= time.monotonic()

    async def push(self, endpoint: Endpoint, staging: Range, opening: Opening) -> None:
        """Write the range as the opening says, and hear that it arrived.

        Raises NotBegun while the ticket is unused; KvRefused; another OSError when the write went wrong. Cancelled, it
        ends at once, and the range may be released: nobody else gets it before the write is over.
        """
        place = Place.parse(endpoint.address)
        if place is None or self._closing.is_set() or len(self._writes) + self._asking >= self._limit:
            raise NotBegun("no room for another write")
        view = staging.view[:]
        self._asking += 1
        try:
            link, target = await self._open(endpoint, place, opening)
        except BaseException:
            view.release()  # a traceback must not keep staging memory alive
            raise
        finally:
            self._asking -= 1
        if self._closing.is_set():
            view.release()
            _leave(link)
            raise PeerLeft("this sender is closing")
        write = _Write(link, endpoint, place.segment, staging, view, target)
        self._writes.add(write)
        staging.pin()
        task = self._tasks.spawn(self._carry(write), name="kv write")
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        if await _outcome(task, write) is not Outcome.WRITTEN:
            raise PeerLeft(f"the write by Mooncake to {place.segment} failed")
        await self._acknowledged(link, endpoint)

    async def close(self) -> None:
        """End the engine, and with it all writes; their receivers hear no word. Idempotent.

        A thread that does not come back in time keeps the engine alive, and the ranges of its writes pinned.
        """
        self._closing.set()
        self._pool.close()
        stuck = False
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.to_thread(self._threads.shutdown)  # they look at `_closing`
        except TimeoutError:
            log.exception("Mooncake does not come back from a call; the staging of its writes stays as it is")
            stuck = True
        if self._carrying:
            await asyncio.wait(self._carrying, timeout=0 if stuck else CLOSE_S)
        _ = await self._tasks.close()
        self._mooncake.close()
        while self._writes and not stuck:
            self._over(next(iter(self._writes)))

    # ---- the opening -------------------------------------------------------------------------------------------------

    async def _open(self, endpoint: Endpoint, place: Place, opening: Opening) -> tuple[Link, int]:
        """Use the ticket: the connection, and where to write. Raises NotBegun or KvRefused."""
        kept = self._pool.take(endpoint)
        if kept is not None:
            with suppress(NotBegun):  # it had died unnoticed; a fresh one tells whether the receiver has too
                return kept, await _ask(kept, opening)
        try:
            async with asyncio.timeout(BEGIN_S):
                await self._aside(partial(self._mooncake.reach, place.segment))
                link = await tcp.connect(place.control)
        except OSError as error:
            raise NotBegun(str(error) or f"no answer within {BEGIN_S:g} s") from error
        return link, await _ask(link, opening)

    async def _acknowledged(self, link: Link, endpoint: Endpoint) -> None:
        """Hear what the receiver says to a finished write; keep the connection if all is well."""
        try:
            answer = parse_answer(await link.read(ANSWER_BYTES))
        except MalformedMessage as error:
            link.close()
            raise PeerLeft(str(error)) from error
        except BaseException:
            link.close()
            raise
        if answer is not Answer.DONE:
            link.close()
            raise refusal(answer)
        self._pool.put(endpoint, link)

    # ---- the write ---------------------------------------------------------------------------------------------------

    async def _carry(self, write: _Write) -> Outcome:
        """Look after one write to its end, whoever waits for it, and say the word."""
        good = False
        try:
            outcome, digest = await self._aside(partial(self._write, write))
            self._over(write)
            if outcome is Outcome.WRITTEN and not write.wanted:
                outcome = Outcome.UNWANTED
            elif outcome is not Outcome.WRITTEN and write.wanted:
                self._doubt(write.endpoint)
            good = _said(write.link, outcome, digest) and outcome is Outcome.WRITTEN
        except PeerLeft as error:
            log.info("a write by Mooncake was left: %s", error)
            return Outcome.BROKEN
        finally:
            if not good:
                write.link.close()
        return outcome if good else Outcome.BROKEN

    def _write(self, write: _Write) -> tuple[Outcome, bytes]:
        """In a thread: write; how it ended, and the checksum. Raises PeerLeft when this sender closes meanwhile."""
        try:
            failpoint("kv.writing")
            if not write.wanted:
                return Outcome.NEVER, bytes(CHECKSUM_BYTES)
            source = self._mooncake.address_of(write.view)
            batch = self._mooncake.begin(write.segment, source, write.target, len(write.view))
        except OSError as error:
            log.warning("a write did not begin: %s", error)
            return Outcome.NEVER, bytes(CHECKSUM_BYTES)
        digest = checksum(write.view)  # while the engine's own threads move the bytes
        look_s = _FIRST_LOOK_S
        while (good := self._mooncake.ended(batch)) is None:
            if self._closing.wait(look_s):
                raise PeerLeft("this sender is closing")
            look_s = min(1.5 * look_s, _LONGEST_LOOK_S)
        return Outcome.WRITTEN if good else Outcome.BROKEN, digest

    def _over(self, write: _Write) -> None:
        """The engine reads the range no more."""
        self._writes.discard(write)
        write.view.release()
        write.staging.unpin()

    def _doubt(self, endpoint: Endpoint) -> None:
        if len(self._doubted) >= _MAX_DOUBTED:
            self._doubted.clear()
        self._doubted[endpoint.address] = time.monotonic() + DOUBT_S

    def _aside(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        if self._closing.is_set():
            raise PeerLeft("this sender is closing")
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


async def _outcome(task: "asyncio.Task[Outcome]", write: _Write) -> Outcome:
    """Wait for a write's end; a cancellation leaves it to itself. Raises PeerLeft when this sender closes."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if task.cancelled() and current is not None and not current.cancelling():
            raise PeerLeft("this sender is closing") from None
        write.wanted = False
        if task.done():
            write.link.close()
        raise


async def _ask(link: Link, opening: Opening) -> int:
    """Where to write. Raises NotBegun or KvRefused, and has closed the connection then."""
    try:
        link.say(opening.pack())
        answer = parse_answer(await link.read(ANSWER_BYTES, first_s=BEGIN_S, rest_s=BEGIN_S))
        if answer is Answer.GO:
            return parse_address(await link.read(ADDRESS_BYTES, first_s=BEGIN_S, rest_s=BEGIN_S))
    except (OSError, MalformedMessage) as error:
        _leave(link)
        raise NotBegun(str(error) or f"no answer within {BEGIN_S:g} s") from error
    except BaseException:
        _leave(link)
        raise
    link.close()
    raise refusal(answer)


def _leave(link: Link) -> None:
    """Close before a write; said, lest the receiver keep the range for as long as one may take."""
    _ = _said(link, Outcome.NEVER)
    link.close()


def _said(link: Link, outcome: Outcome, digest: bytes = bytes(CHECKSUM_BYTES)) -> bool:
    """Say the last word on a write; whether that could be done."""
    try:
        link.say(pack_word(outcome, digest))
    except OSError as error:
        log.debug("nobody heard how a write ended: %s", error)
        return False
    return True
