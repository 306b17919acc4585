"""Looks for the fallen: leases that are gone, health ports that refuse. Tells what it finds, decides nothing."""

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from services.monitor.book import Book
from services.monitor.leadership import NAME, Leadership
from shared.errors import Unavailable
from shared.messages import InstanceRecord, State, Status
from shared.policy.fleet.events import ConnectionRefused, LeaseLost

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PROBES = 64
"""Connections tried at once."""

Found = Callable[[LeaseLost | ConnectionRefused], None]

log = logging.getLogger(__name__)


class Watch:
    """The monitor's own look at the instances. `statuses` is what each said last, kept by the caller."""

    def __init__(self, book: Book, leadership: Leadership, host: str, found: Found) -> None:
        self.records: Mapping[str, InstanceRecord] = {}  # as read last
        self._book = book
        self._leadership = leadership
        self._host = host
        self._found = found
        self._probing = asyncio.Semaphore(PROBES)

    async def leases(self, statuses: Mapping[str, Status]) -> None:
        """Compare what instances said with the leases that Redis holds; silence of Redis says nothing.

        One that is starting may lose its lease to the model that it loads; its silence is the decider's to bound.
        """
        known = {  # before asking: a lease precedes its status
            name: status.epoch for name, status in statuses.items() if status.state is not State.STARTING
        }
        try:
            held = await self._book.leases(NAME, known)
            self.records = await self._book.records()
        except Unavailable as error:
            log.debug("leases not read", extra={"error": str(error)})
            return
        if not self._leadership.leading or held.leader != self._leadership.owner:
            return  # a Redis that has forgotten our own lease has forgotten theirs too
        for name, epoch in known.items():
            if held.epochs[name] != epoch:
                self._found(LeaseLost(name, epoch))

    async def probe(self, status: Status, timeout_s: float) -> None:
        """Try the health port of an instance that is late. Refused: the process is gone. Anything else says nothing."""
        record = self.records.get(status.instance)
        if record is None or record.epoch != status.epoch:
            return
        address = urlsplit(record.health_url)
        if not address.hostname or not address.port:
            return
        if address.hostname in LOOPBACK and record.host != self._host:
            return  # another machine's loopback is not ours
        async with self._probing:
            if await _refused(address.hostname, address.port, timeout_s):
                self._found(ConnectionRefused(status.instance, status.epoch))


async def _refused(host: str, port: int, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return False
    except OSError as error:
        return error.errno == errno.ECONNREFUSED
    writer.close()
    return False
