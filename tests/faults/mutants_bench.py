"""What stands around a mutant in its test: the product to compare it with, the wires of both, streams through them."""

import asyncio
from contextlib import AsyncExitStack

from shared.messages import Role
from tests.faults.cluster import Cluster
from tests.faults.cluster_process import Process
from tests.faults.history import History, check
from tests.faults.mutants import VARIABLE
from tests.faults.nats_wire import NatsWire
from tests.faults.trial import in_the_map, place_for_one_more
from tests.faults.wire import Wire
from tests.servers import HOST, free_port

MODULE = "tests.faults.mutants"
STREAMS = 6


class Bench:
    """What one test adds to the cluster: mutants, products to compare with, wires; all of it goes again."""

    def __init__(self, fleet: Cluster, stack: AsyncExitStack) -> None:
        self.fleet = fleet
        self.nats: dict[str, NatsWire] = {}
        self.redis: dict[str, Wire] = {}
        self._stack = stack
        self._added: list[Process] = []

    async def add(self, role: Role, mutation: str = "", env: dict[str, str] | None = None) -> str:
        """Start the product, or a mutant, under a name of its own, behind wires of its own; its name."""
        if role in (Role.PREFILL, Role.DECODE):
            await place_for_one_more(self.fleet, role)
        name = f"{role.value}-{len(self.fleet.everyone) + 1}"
        self.nats[name] = await self._stack.enter_async_context(NatsWire(self.fleet.nats.port))
        self.redis[name] = await self._stack.enter_async_context(Wire(self.fleet.redis.port))
        redis_url = f"redis://:{self.fleet.redis.password}@{HOST}:{self.redis[name].port}/0"
        lines = {"BATON_NATS__URL": f"nats://{HOST}:{self.nats[name].port}", "BATON_REDIS__URL": redis_url}
        mutant = {VARIABLE: mutation} if mutation else {}
        env = {**lines, **mutant, **(env or {})}
        self._added.append(await self.fleet.start(role, name, env=env, module=MODULE if mutation else None))
        return name

    async def decode(self, mutation: str = "") -> str:
        """Start one more decode, the second; its name once buffers go there."""
        name = await self.add(Role.DECODE, mutation)
        await self.fleet.until_ready(name)
        await in_the_map(self.fleet, Role.DECODE, name)
        await asyncio.sleep(0.5)  # the prefill hears the map and the statuses, too
        return name

    async def replace(self, name: str) -> None:
        """Start a worker under the name of one that goes on, at another health port; it is ready then."""
        port = free_port()
        added = await self.fleet.start(
            self.fleet.processes[name].role, name, env={"BATON_INSTANCE__HEALTH_PORT": str(port)}
        )
        added.health_url = f"http://{HOST}:{port}"
        self._added.append(added)
        await self.fleet.until_ready(name)

    async def gateways(self, *mutations: str) -> list[str]:
        """Start gateways, "" being the product; their names once they are ready."""
        names = [await self.add(Role.GATEWAY, mutation) for mutation in mutations]
        await asyncio.gather(*map(self.fleet.until_ready, names))
        return names

    async def away(self) -> None:
        """End what was added."""
        for process in self._added:
            process.kill()
            await process.ended()
            self.fleet.processes.pop(process.name, None)


class Traffic:
    """Streams through one gateway."""

    def __init__(
        self, fleet: Cluster, gateway: str, tokens: int, *, streams: int = STREAMS, timeout_s: float = 60
    ) -> None:
        self.history = History()
        self.streams = streams
        url = fleet.url(int(gateway.rpartition("-")[2]))
        self.works = [
            asyncio.ensure_future(
                self.history.ask(url, f"{gateway} {k} " + "x" * 40, tokens, seed=k, timeout_s=timeout_s)
            )
            for k in range(streams)
        ]

    async def under_way(self, tokens: int = 3) -> None:
        await self.history.flowing(self.streams, tokens)

    async def violations(self) -> list[str]:
        """Everything that is wrong with them, once all have ended."""
        await asyncio.gather(*self.works)
        return check(self.history) + self.history.failed
