"""The fleet of a soak: every line a wire, whoever falls is replaced, so that all can always come back.

Owns the names of those to come and who is what by now. Chooses no fault.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.messages import InstanceRecord, Role
from tests.faults.cluster import Cluster, cluster
from tests.faults.wired import ORDER, Wired

GATEWAYS: Final = 2
COUNTS: Final = {Role.MONITOR: 2, Role.PREFILL: 2, Role.DECODE: 2, Role.STANDBY: 2, Role.GATEWAY: GATEWAYS}
CLOCKWORK: Final = """
[fleet]
progress_s = 3.0
push_timeout_s = 3.0
drain_s = 5.0
orphan_grace_s = 5.0
[scenario.chat]
prefill = 2
decode = 2
"""
"""Quicker than the product's where a test would have to wait; the lease and the heartbeat are the product's own."""
STEP: Final[dict[str, object]] = {"decode_step_ms": 10}


class Field:
    """Who is there, and who comes next."""

    def __init__(self, wired: Wired, say: Callable[[str], None]) -> None:
        self.wired = wired
        self.cluster: Cluster = wired.cluster
        self.say = say
        self._roles: dict[str, Role] = {}  # as they last said: a standby becomes a worker
        self._numbers = itertools.count(3)

    @property
    def urls(self) -> list[str]:
        return [self.cluster.url(n) for n in range(1, GATEWAYS + 1)]

    def learn(self, records: list[InstanceRecord]) -> None:
        """Take in what the instances say of themselves."""
        self._roles.update({record.id: record.role for record in records})

    def there(self, role: Role) -> list[str]:
        """Name those of a role that live and move."""
        processes = self.cluster.processes
        return sorted(
            name
            for name, one in processes.items()
            if one.alive and not one.frozen and self._roles.get(name, one.role) is role
        )

    async def replace(self, name: str, role: Role) -> None:
        """Bring somebody for one who fell: gateways and monitors come back, a worker is followed by another."""
        if role in (Role.GATEWAY, Role.MONITOR):
            await self.wired.start(role, name)
            self.say(f"{name} is started again")
            return
        number = next(self._numbers)
        heir = role if role is Role.DECODE and number % 2 else Role.STANDBY
        await self.wired.start(heir, f"{heir.value}-{number}")
        self.say(f"{heir.value}-{number} is started in place of {name}")

    async def healed(self) -> None:
        """End whatever is still hurt, and wait until whoever should be ready is."""
        for process in self.cluster.processes.values():
            if process.alive and process.frozen:
                process.thaw()
        await self.wired.heal()
        for name, process in list(self.cluster.processes.items()):
            if process.alive:
                await self.cluster.until_ready(name)
            elif process.role in (Role.GATEWAY, Role.MONITOR):
                await self.wired.start(process.role, name)
                await self.cluster.until_ready(name)


@asynccontextmanager
async def field(folder: Path, say: Callable[[str], None]) -> AsyncIterator[Field]:
    """Start the fleet of a soak."""
    none: dict[str, Any] = {"gateways": 0, "prefills": 0, "decodes": 0, "monitors": 0}
    async with AsyncExitStack() as stack, cluster(folder, **none, options=STEP, toml=CLOCKWORK) as made:
        wired = Wired(made, stack)
        for role in ORDER:
            for number in range(1, COUNTS[role] + 1):
                await wired.start(role, f"{role.value}-{number}")
        names = list(made.processes)
        await asyncio.gather(*map(made.until_ready, names))
        for name in names:
            made.idle.note(await made.metrics(name))
        yield Field(wired, say)


async def flush(cluster: Cluster) -> None:
    """Let Redis forget everything."""
    client = Redis.from_url(cluster.redis.settings().url)
    try:
        await client.flushall()
    except (RedisError, OSError):
        return  # it is away; then it forgets nothing
    finally:
        await client.aclose()
