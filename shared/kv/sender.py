"""Prefill's end of the hand-off: pushes a staged buffer to the first endpoint of a grant that can be reached.

Owns the connections to receivers, kept for the next push while they are healthy, and the threads that move bytes. Must
not know what a buffer means, and never repeats a push that may have begun: the ticket is good for one.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from shared.config import KvSettings
from shared.errors import DeadlineExceeded, Draining, KvRefused, MalformedMessage, WorkerLost
from shared.failpoints import failpoint
from shared.kv import Staging, shm, tcp
from shared.kv.arena import Arena, Range
from shared.kv.growth import Growing
from shared.kv.layout import checksum
from shared.kv.link import Link, PeerLeft, aside
from shared.kv.pool import Pool
from shared.kv.wire import ANSWER_BYTES, Answer, Opening, opening_for, parse_answer, refusal
from shared.messages import Endpoint, KvGrant

CONNECT_S: Final = 2.0
"""How long one endpoint may take to answer before the next is tried."""
MOST_GROWING: Final = 8
"""Buffers pushed while they grow, at once; never more than half of all."""
_MAX_ENDPOINTS: Final = 8


class NotBegun(ConnectionError):
    """Raised when a receiver could not be reached, or left before it answered the opening."""


class Sender:
    """A KvSender. Moves settings.max_transfers buffers at once; further ones wait their turn within their deadline."""

    def __init__(self, arena: Arena, settings: KvSettings) -> None:
        self._arena = arena
        self._threads = ThreadPoolExecutor(settings.max_transfers, thread_name_prefix="kv-send")
        self._turn = asyncio.Semaphore(settings.max_transfers)
        self._most_growing = min(MOST_GROWING, settings.max_transfers // 2)
        self._growing = 0
        self._pool = Pool(settings.max_transfers)
        self._moving: set[Link] = set()
        self._closed = False

    @property
    def links(self) -> int:
        """Connections to receivers, moving and kept."""
        return len(self._pool) + len(self._moving)

    @property
    def may_grow(self) -> bool:
        """Whether one more buffer may be pushed while it grows."""
        return self._growing < self._most_growing

    async def push_growing(self, growing: Growing, grant: KvGrant) -> str:
        """Push a buffer as it becomes final, over TCP, for a receiver cannot know how far it may copy; see KvSender."""
        self._growing += 1
        try:
            return await self._push(growing, grant)
        finally:
            self._growing -= 1

    async def push(self, staging: Staging, grant: KvGrant) -> str:
        """Push the buffer as the grant allows; the transport used.

        Raises KvRefused (the receiver said no), WorkerLost (it cannot be reached or went away), DeadlineExceeded, or
        Draining when this sender closes. In every case, cancellation included, we read the range no more. A receiver
        on this host may do so for a moment after a cancellation, and then notices by the checksum.
        """
        return await self._push(staging, grant)

    async def _push(self, payload: Staging | Growing, grant: KvGrant) -> str:
        what = f"the KV push of {grant.request_id} to {grant.instance}"
        seconds = grant.deadline_ms / 1000 - time.time()
        if seconds <= 0:
            raise DeadlineExceeded(f"{what} came after its deadline")
        try:
            async with asyncio.timeout(seconds), self._turn:
                return await self._to_first_reachable(payload, grant)
        except TimeoutError:
            raise DeadlineExceeded(f"{what} was not done before its deadline") from None
        except OSError as error:
            if self._closed:
                raise Draining(f"{what} was cut: this sender is closing") from error
            raise WorkerLost(f"{what} failed: {error}") from error

    async def close(self) -> None:
        """Cut what still moves, close all connections, end all threads. Idempotent."""
        self._closed = True
        self._pool.close()
        for link in self._moving:
            link.cut()
        self._threads.shutdown(wait=True)  # a cut thread ends within a chunk's time

    async def _to_first_reachable(self, payload: Staging | Growing, grant: KvGrant) -> str:
        missed = []
        for endpoint in grant.endpoints[:_MAX_ENDPOINTS]:
            if self._usable(endpoint, payload):
                try:
                    await self._to(endpoint, payload, grant)
                except NotBegun as error:
                    missed.append(f"{endpoint.transport} {endpoint.address}: {error}")
                else:
                    return endpoint.transport
        raise NotBegun(f"no endpoint can be reached ({'; '.join(missed) or 'none is of a kind that we can use'})")

    def _usable(self, endpoint: Endpoint, payload: Staging | Growing) -> bool:
        if endpoint.transport == shm.TRANSPORT:
            ours = isinstance(payload, Range) and payload.arena is self._arena and self._arena.fd is not None
            return ours and shm.reachable(endpoint.address)
        return endpoint.transport == tcp.TRANSPORT

    async def _to(self, endpoint: Endpoint, payload: Staging | Growing, grant: KvGrant) -> None:
        offset = payload.offset if endpoint.transport == shm.TRANSPORT and isinstance(payload, Range) else 0
        opening = opening_for(grant, payload.nbytes if isinstance(payload, Growing) else len(payload.view), offset)
        kept = self._pool.take(endpoint)
        if kept is not None:
            try:
                return await self._exchange(kept, endpoint, payload, opening)
            except NotBegun:
                pass  # it had died unnoticed; a fresh connection tells whether the receiver has too
        link = await self._connect(endpoint)
        return await self._exchange(link, endpoint, payload, opening)

    async def _connect(self, endpoint: Endpoint) -> Link:
        try:
            async with asyncio.timeout(CONNECT_S):
                if endpoint.transport == shm.TRANSPORT and self._arena.fd is not None:
                    return await shm.connect(endpoint.address, self._arena.fd, self._arena.size)
                return await tcp.connect(endpoint.address)
        except (OSError, KvRefused, MalformedMessage) as error:
            raise NotBegun(str(error) or f"no answer within {CONNECT_S:g} s") from error

    async def _exchange(self, link: Link, endpoint: Endpoint, payload: Staging | Growing, opening: Opening) -> None:
        healthy = False
        self._moving.add(link)
        try:
            if self._closed:
                raise NotBegun("this sender is closing")
            send = _sending(payload, by_tcp=endpoint.transport == tcp.TRANSPORT)
            await aside(self._threads, link, partial(_talk, link, opening, send))
            healthy = True
        finally:
            self._moving.discard(link)
            if healthy:
                self._pool.put(endpoint, link)
            else:
                link.close()


def _sending(payload: Staging | Growing, *, by_tcp: bool) -> Callable[[Link], bytes]:
    """What sends a payload in a thread and returns its checksum. By shared memory there is nothing to send."""
    if isinstance(payload, Growing):
        return partial(tcp.send_growing, growing=payload)
    view = payload.view
    return partial(tcp.send, view=view) if by_tcp else lambda link: checksum(view, link.still_wanted)


def _talk(link: Link, opening: Opening, send: Callable[[Link], bytes]) -> None:
    """In a thread: one push from opening to the last answer. Raises NotBegun, another OSError, or KvRefused."""
    try:
        link.put(opening.pack())
        link.patience(CONNECT_S)  # one that lives answers at once: it has a thread for every ticket
        answer = _answer(link)
        link.patience(None)
    except OSError as error:
        raise NotBegun(str(error)) from error
    if answer is Answer.GO:
        failpoint("kv.pushing")
        link.put(send(link))
        answer = _answer(link)
    if answer is not Answer.DONE:
        raise refusal(answer)


def _answer(link: Link) -> Answer:
    try:
        return parse_answer(link.take(ANSWER_BYTES))
    except MalformedMessage as error:
        raise PeerLeft(str(error)) from error
