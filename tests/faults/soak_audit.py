"""Looks at the leases and records in Redis while a fleet is hurt: no lease is held twice, no epoch goes back (I4).

`Audit` is pure and keeps the rules; `watch` feeds it, from Redis itself, past all wires.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.messages import Epoch, InstanceRecord
from tests.faults.cluster import Cluster

EVERY_S: Final = 0.05
RECORDS_EVERY: Final = 6
"""Looks at the leases for each look at the records."""
PREFIX: Final = "baton:lease:"


class Audit:
    """What was seen, and what was wrong with it."""

    def __init__(self) -> None:
        self._wrong: dict[str, None] = {}  # each once
        self.leases_seen = 0
        self._leases: dict[str, tuple[str, Epoch]] = {}
        self._epochs: dict[Epoch, tuple[str, str]] = {}
        self._processes: dict[tuple[str, Epoch], int] = {}

    @property
    def wrong(self) -> list[str]:
        return list(self._wrong)

    def _say(self, wrong: str) -> None:
        self._wrong[wrong] = None

    def lease(self, name: str, owner: str, epoch: Epoch) -> None:
        """Take in a lease as it stands: its owner, and since which epoch."""
        self.leases_seen += 1
        before_owner, before = self._leases.get(name, (owner, epoch))
        if epoch < before:
            self._say(f"the lease {name} went back from epoch {before} to {epoch}")
        if epoch == before and owner != before_owner:
            self._say(f"the lease {name} passed from {before_owner} to {owner} within epoch {epoch}")
        self._leases[name] = (owner, epoch)
        holder = self._epochs.setdefault(epoch, (name, owner))
        if holder != (name, owner):
            self._say(f"epoch {epoch} was given to {holder} and to {(name, owner)}")

    def record(self, instance: str, pid: int, epoch: Epoch) -> None:
        """Take in what an instance says of itself; where a monitor says it for one that is gone, there is no pid."""
        if not pid:
            return
        other = self._processes.setdefault((instance, epoch), pid)
        if other != pid:
            self._say(f"the processes {other} and {pid} both were {instance} with epoch {epoch}")


async def watch(
    cluster: Cluster, audit: Audit, learn: Callable[[list[InstanceRecord]], None], over: asyncio.Event
) -> None:
    """Look until it is over; what Redis does not answer while it is away is not seen."""
    client = Redis.from_url(cluster.redis.settings().url, decode_responses=True, socket_timeout=1)
    looks = 0
    try:
        while not over.is_set():
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await _look(client, audit)
                if looks % RECORDS_EVERY == 0:
                    records = await cluster.records()
                    learn(records)
                    for record in records:
                        if record.epoch != (0, 0):
                            audit.record(record.id, record.pid, record.epoch)
            looks += 1
            await asyncio.sleep(EVERY_S)
    finally:
        await client.aclose()


async def _look(client: Redis, audit: Audit) -> None:
    for key in [key async for key in client.scan_iter(PREFIX + "*")]:
        owner, boot, counter = await client.hmget(str(key), ["owner", "boot", "counter"])
        if owner and boot and counter:
            audit.lease(str(key).removeprefix(PREFIX), str(owner), (int(boot), int(counter)))
