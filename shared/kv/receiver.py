"""Decode's end of the hand-off: grants tickets, listens, takes buffers in and verifies them.

Owns the listening sockets, the connections' tasks and the threads that move bytes. Must not know what a buffer means.
Tickets, threads and connections are bounded; a push's deadline cuts whoever is slow. By default it listens on loopback
only. On another address the ticket is what authorises a push: see `tcp`.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Self

from shared.config import KvSettings
from shared.errors import Draining, Unavailable
from shared.kv import Expected, cuda_ipc, mooncake, shm, stripes, tcp
from shared.kv.arena import Arena
from shared.kv.block_fixed import BlockFixed
from shared.kv.intake import Intake, Welcome
from shared.kv.link import Link
from shared.kv.mooncake_receiver import Landing
from shared.kv.striped_receiver import Striped
from shared.kv.tickets import Tickets
from shared.messages import Endpoint
from shared.tasks import Tasks

CLOSE_S: Final = 5.0
_BREATH_S: Final = 0.1

log = logging.getLogger(__name__)


class Receiver:
    """A KvReceiver over TCP and, where the platform can, shared memory and device memory; by Mooncake where told to.

    `blocks` is for measuring only: see `block_fixed`.
    """

    def __init__(self, settings: KvSettings, arena: Arena, blocks: BlockFixed | None = None) -> None:
        connections = stripes.connections(settings)
        most = settings.max_transfers * connections
        max_idle = most + 16  # moving ones come on top, no more than `most`
        self._tickets = Tickets(arena, settings.max_transfers)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="kv-receive")
        self._mooncake = mooncake.opened(settings, arena)
        self._landing: Landing | None = None
        if self._mooncake is not None:
            self._landing = Landing(self._mooncake, self._tickets, self._threads, settings.mooncake_grace_s)
        striped = Striped(self._tickets, self._threads, connections)
        self._intake = Intake(self._tickets, self._threads, max_idle, striped, self._landing, blocks=blocks)
        self._tasks = Tasks("kv receiver", limit=2 * (max_idle + most))
        self._closed = False
        listener = tcp.listen(settings.host, settings.port)
        self._listeners: list[tuple[Link, Welcome | None]] = [(Link(listener), None)]
        self.endpoints = [Endpoint(tcp.TRANSPORT, tcp.address_of(listener, settings.advertise), connections)]
        if self._mooncake is not None:
            self.endpoints.insert(0, self._mooncake.endpoint(self.endpoints[0].address))
        local = shm.listen() if settings.shared_memory else None
        if local is not None:
            self._listeners.append((Link(local), shm.welcome))
            self.endpoints.insert(0, Endpoint(shm.TRANSPORT, shm.address_of(local)))
        between_devices = cuda_ipc.listen(arena) if settings.shared_memory else None
        if between_devices is not None:
            self._listeners.append((Link(between_devices), partial(cuda_ipc.welcome, arena=arena)))
            self.endpoints.insert(0, Endpoint(cuda_ipc.TRANSPORT, shm.address_of(between_devices)))

    @classmethod
    async def open(cls, settings: KvSettings, arena: Arena, blocks: BlockFixed | None = None) -> Self:
        """Listen as the settings say. Raises ConfigError when the address cannot be listened on."""
        receiver = cls(settings, arena, blocks)
        for listener, welcome in receiver._listeners:
            _ = receiver._tasks.spawn(receiver._accept(listener, welcome), name="kv accept")
        return receiver

    @property
    def expected(self) -> int:
        """Pushes granted, moving, or arrived and not taken yet; and those given up that may still be written to."""
        return len(self._tickets)

    @property
    def links(self) -> int:
        """Connections from senders, moving and kept."""
        return max(0, len(self._tasks) - len(self._listeners))

    def expect(self, key: str, nbytes: int, deadline_ms: int) -> Expected:
        """Reserve staging for one push; `key` is `wire.push_key(request_id, attempt)`, which the sender repeats.

        Raises Overloaded at the bound of the arena or of transfers, TooLarge when the arena can never hold it,
        DeadlineExceeded when the deadline has passed, Draining after close.
        """
        if self._closed:
            raise Draining("the KV receiver is closing")
        return self._tickets.grant(key, nbytes, deadline_ms)

    async def close(self) -> None:
        """Void all tickets, cut all connections, end all threads. Idempotent."""
        self._closed = True
        self._tickets.close(Draining("the KV receiver is closing"))
        stuck = await self._tasks.close(CLOSE_S)
        self._threads.shutdown(wait=not stuck)
        if self._mooncake is not None and self._landing is not None:
            self._mooncake.close()
            self._landing.close()
        for listener, _ in self._listeners:
            listener.close()

    async def _accept(self, listener: Link, welcome: Welcome | None) -> None:
        while True:
            try:
                sock = await listener.accept()
            except OSError as error:  # out of descriptors, or the peer has gone again
                log.warning("cannot accept a KV connection: %s", error)
                await asyncio.sleep(_BREATH_S)
                continue
            link = Link(sock) if welcome else tcp.accepted(sock)
            try:
                task = self._tasks.spawn(self._intake.serve(link, welcome), name="kv connection")
                task.add_done_callback(partial(_closed, link))
            except Unavailable:  # more connections than may be idle or moving, before their tasks could run
                link.close()
            await asyncio.sleep(0)  # let it begin: whoever floods us makes its own connections' room


def _closed(link: Link, _: asyncio.Task[None]) -> None:
    """Also where the task was cancelled before it began."""
    link.close()
