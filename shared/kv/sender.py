"""Prefill's end of the hand-off: pushes a staged buffer to the first endpoint of a grant that can be reached.

Owns the connections to receivers, kept for the next push while they are healthy, and the threads that move bytes. Must
not know what a buffer means, and never repeats a push that may have begun: the ticket is good for one.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final

from shared.config import KvSettings
from shared.errors import DeadlineExceeded, Draining, KvRefused, MalformedMessage, WorkerLost
from shared.failpoints import failpoint
from shared.kv import Staging, cuda_ipc, mooncake, shm, striped_sender, stripes, tcp
from shared.kv.arena import Arena, Range
from shared.kv.block_fixed import BlockFixed
from shared.kv.growth import Growing
from shared.kv.layout import checksum
from shared.kv.link import Link, NotBegun, PeerLeft, aside
from shared.kv.mooncake_sender import Writes
from shared.kv.pool import Pool
from shared.kv.striped_sender import Send
from shared.kv.wire import ANSWER_BYTES, Answer, Kind, Opening, opening_for, parse_answer, refusal
from shared.messages import Endpoint, KvGrant
from shared.tasks import unbroken

CONNECT_S: Final = 2.0
"""How long one endpoint may take to answer before the next is tried."""
MOST_GROWING: Final = 8
"""Buffers pushed while they grow, at once; never more than half of all."""
_MAX_ENDPOINTS: Final = 8
_MAX_APART: Final = 1024
_IN_PLACE: Final = (cuda_ipc.TRANSPORT, shm.TRANSPORT)
"""Ways by which the receiver reads our staging itself, and must know where."""


class Sender:
    """A KvSender. Moves settings.max_transfers buffers at once; further ones wait their turn within their deadline.

    `blocks` is for measuring only: see `block_fixed`.
    """

    def __init__(self, arena: Arena, settings: KvSettings, blocks: BlockFixed | None = None) -> None:
        self._arena = arena
        self._blocks = blocks
        engine = mooncake.opened(settings, arena)
        self._writes = None if engine is None else Writes(engine, settings.max_transfers)
        self._connections = stripes.connections(settings)  # that one buffer may go over
        most = settings.max_transfers * self._connections
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="kv-send")
        self._turn = asyncio.Semaphore(settings.max_transfers)
        self._most_growing = min(MOST_GROWING, settings.max_transfers // 2)
        self._growing = 0
        self._apart: set[str] = set()  # receivers' addresses, whose device cannot read ours
        self._pool = Pool(most)
        self._moving: set[Link] = set()
        self._closed = False

    @property
    def links(self) -> int:
        """Connections to receivers, moving and kept."""
        return len(self._pool) + len(self._moving) + (0 if self._writes is None else self._writes.links)

    @property
    def may_grow(self) -> bool:
        """Whether one more buffer may be pushed while it grows. By Mooncake each goes whole."""
        return self._writes is None and self._growing < self._most_growing

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
        Draining when this sender closes. In every case, cancellation included, we read the range no more; or it is
        pinned, see `mooncake_sender`. A receiver on this host may read it for a moment after a cancellation, and then
        notices by the checksum.
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
        if self._writes is not None:
            await self._writes.close()
        self._threads.shutdown(wait=True)  # a cut thread ends within a chunk's time

    async def _to_first_reachable(self, payload: Staging | Growing, grant: KvGrant) -> str:
        missed = []
        for endpoint in grant.endpoints[:_MAX_ENDPOINTS]:
            if self._usable(endpoint, payload):
                if endpoint.transport != cuda_ipc.TRANSPORT:
                    await self._to_host(payload)
                try:
                    await self._to(endpoint, payload, grant)
                except KvRefused as error:
                    self._doubt(endpoint, error)
                    raise
                except NotBegun as error:
                    self._doubt(endpoint, error.__cause__)
                    missed.append(f"{endpoint.transport} {endpoint.address}: {error}")
                else:
                    return endpoint.transport
        raise NotBegun(f"no endpoint can be reached ({'; '.join(missed) or 'none is of a kind that we can use'})")

    def _usable(self, endpoint: Endpoint, payload: Staging | Growing) -> bool:
        ours = isinstance(payload, Range) and payload.arena is self._arena
        if endpoint.transport == shm.TRANSPORT:
            return ours and self._arena.fd is not None and shm.reachable(endpoint.address)
        if endpoint.transport == mooncake.TRANSPORT:
            return ours and self._writes is not None and self._writes.usable(endpoint)
        if endpoint.transport == cuda_ipc.TRANSPORT:
            return ours and self._on_device(payload) and self._between_devices(endpoint)
        return endpoint.transport == tcp.TRANSPORT

    def _on_device(self, payload: Staging | Growing) -> bool:
        return isinstance(payload, Range) and payload.offset in self._arena.on_device

    def _between_devices(self, endpoint: Endpoint) -> bool:
        device = self._arena.device
        apart = endpoint.address in self._apart
        return device is not None and not apart and cuda_ipc.reachable(endpoint.address, device)

    def _doubt(self, endpoint: Endpoint, error: BaseException | None) -> None:
        """Remember a receiver whose device cannot read ours: the next buffer goes another way at once."""
        if endpoint.transport == cuda_ipc.TRANSPORT and isinstance(error, KvRefused) and error.reason == "memory":
            if len(self._apart) >= _MAX_APART:
                self._apart.clear()
            self._apart.add(endpoint.address)

    async def _to_host(self, payload: Staging | Growing) -> None:
        """Bring a buffer that lies on our device to where every other transport finds it."""
        device = self._arena.device
        if device is None or not isinstance(payload, Range) or not self._on_device(payload):
            return
        copy = partial(device.to_host, payload.offset, payload.view, self._still_open)
        await unbroken(_in_thread(self._threads, copy))
        self._arena.on_device.discard(payload.offset)

    def _still_open(self) -> None:
        if self._closed:
            raise PeerLeft("this sender is closing")

    async def _to(self, endpoint: Endpoint, payload: Staging | Growing, grant: KvGrant) -> None:
        if endpoint.transport == mooncake.TRANSPORT and self._writes is not None and isinstance(payload, Range):
            await self._writes.push(endpoint, payload, opening_for(grant, payload.nbytes, kind=Kind.WRITE))
            return
        offset = payload.offset if endpoint.transport in _IN_PLACE and isinstance(payload, Range) else 0
        opening = opening_for(grant, payload.nbytes if isinstance(payload, Growing) else len(payload.view), offset)
        parts = 1
        if endpoint.transport == tcp.TRANSPORT and not isinstance(payload, Growing):
            parts = stripes.number(len(payload.view), self._connections, endpoint.connections)
        if parts > 1:
            await striped_sender.push(
                partial(self._carry, endpoint), opening, striped_sender.Parts(payload.view, parts)
            )
        else:
            await self._carry(endpoint, opening, self._sending(payload, endpoint.transport))

    def _sending(self, payload: Staging | Growing, transport: str) -> Send:
        """What sends a payload in a thread. What is read in place is only summed up."""
        if isinstance(payload, Growing):
            return partial(tcp.send_growing, growing=payload)
        view, device, over_tcp = payload.view, self._arena.device, transport == tcp.TRANSPORT
        if transport == cuda_ipc.TRANSPORT and device is not None and isinstance(payload, Range):
            place = payload.offset, len(view)
            return lambda link: device.checksum(*place, link.still_wanted)
        if self._blocks is not None:
            return partial(self._blocks.send if over_tcp else self._blocks.announce, view=view)
        return partial(tcp.send, view=view) if over_tcp else lambda link: checksum(view, link.still_wanted)

    async def _carry(self, endpoint: Endpoint, opening: Opening, send: Send) -> None:
        """One exchange, over a kept connection or another."""
        kept = self._pool.take(endpoint)
        if kept is not None:
            with suppress(NotBegun):  # it had died unnoticed; a fresh connection tells whether the receiver has too
                await self._exchange(kept, endpoint, opening, send)
                return
        await self._exchange(await self._connect(endpoint), endpoint, opening, send)

    async def _connect(self, endpoint: Endpoint) -> Link:
        try:
            async with asyncio.timeout(CONNECT_S):
                if endpoint.transport == shm.TRANSPORT and self._arena.fd is not None:
                    return await shm.connect(endpoint.address, self._arena.fd, self._arena.size)
                if endpoint.transport == cuda_ipc.TRANSPORT and self._arena.device is not None:
                    return await cuda_ipc.connect(endpoint.address, self._arena.device)
                return await tcp.connect(endpoint.address)
        except (OSError, KvRefused, MalformedMessage) as error:
            raise NotBegun(str(error) or f"no answer within {CONNECT_S:g} s") from error

    async def _exchange(self, link: Link, endpoint: Endpoint, opening: Opening, send: Send) -> None:
        healthy = False
        self._moving.add(link)
        try:
            if self._closed:
                raise NotBegun("this sender is closing")
            await aside(self._threads, link, partial(_talk, link, opening, send))
            healthy = True
        finally:
            self._moving.discard(link)
            if healthy:
                self._pool.put(endpoint, link)
            else:
                link.close()


async def _in_thread(threads: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(threads, work)


def _talk(link: Link, opening: Opening, send: Send) -> None:
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
        digest = send(link)
        with suppress(BrokenPipeError):  # a receiver that cannot copy has said so already
            link.put(digest)
        answer = _answer(link)
    if answer is not Answer.DONE:
        raise refusal(answer)


def _answer(link: Link) -> Answer:
    try:
        return parse_answer(link.take(ANSWER_BYTES))
    except MalformedMessage as error:
        raise PeerLeft(str(error)) from error
