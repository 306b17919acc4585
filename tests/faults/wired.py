"""A cluster in which every line can be hurt by itself.

Each instance reaches NATS and Redis across a wire of its own, and so is each decode reached by whoever pushes KV to it.

Owns the wires. The workers have no shared memory, as on different machines.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shared.messages import Role
from tests.faults.cluster import Cluster, cluster
from tests.faults.nats_wire import NatsWire
from tests.faults.wire import Wire
from tests.servers import HOST, free_port

ORDER = (Role.MONITOR, Role.PREFILL, Role.DECODE, Role.STANDBY, Role.GATEWAY)


class Wired:
    """The cluster and its lines, by the name of the instance at their end."""

    def __init__(self, cluster: Cluster, stack: AsyncExitStack) -> None:
        self.cluster = cluster
        self.nats: dict[str, NatsWire] = {}
        self.redis: dict[str, Wire] = {}
        self.kv: dict[str, Wire] = {}  # of the decodes: from whoever pushes to it
        self._stack = stack

    @property
    def url(self) -> str:
        """Base URL of the gateway."""
        return self.cluster.url()

    @property
    def wires(self) -> list[Wire]:
        """All of them, in a fixed order."""
        return [wire for wires in (self.nats, self.redis, self.kv) for _, wire in sorted(wires.items())]

    async def start(self, role: Role, name: str) -> None:
        """Start an instance at the end of its own lines, which stay when it is started again."""
        if name not in self.nats:
            seed = len(self.wires)
            self.nats[name] = await self._stack.enter_async_context(NatsWire(self.cluster.nats.port, seed=seed))
            self.redis[name] = await self._stack.enter_async_context(Wire(self.cluster.redis.port, seed=seed + 1))
        env = {
            "BATON_NATS__URL": f"nats://{HOST}:{self.nats[name].port}",
            "BATON_REDIS__URL": f"redis://:{self.cluster.redis.password}@{HOST}:{self.redis[name].port}/0",
            "BATON_KV__SHARED_MEMORY": "false",
        }
        if role is Role.DECODE:
            if name not in self.kv:
                self.kv[name] = await self._stack.enter_async_context(Wire(free_port(), seed=len(self.wires)))
            env["BATON_KV__PORT"] = str(self.kv[name].target)
            env["BATON_KV__ADVERTISE"] = f"{HOST}:{self.kv[name].port}"
        await self.cluster.start(role, name, env=env)

    async def heal(self) -> None:
        """End every fault of every line."""
        for wire in self.wires:
            await wire.heal()


@asynccontextmanager
async def wired(
    folder: Path, *, prefills: int = 2, decodes: int = 2, standbys: int = 0, monitors: int = 1, toml: str = ""
) -> AsyncIterator[Wired]:
    """Start a wired cluster with one gateway and wait until it is ready."""
    wanted = f"[scenario.chat]\nprefill = {prefills}\ndecode = {decodes}\n"
    none = {"gateways": 0, "prefills": 0, "decodes": 0, "monitors": 0}
    async with AsyncExitStack() as stack, cluster(folder, **none, toml=wanted + toml) as made:  # type: ignore[arg-type]
        hurt = Wired(made, stack)
        for role, count in zip(ORDER, (monitors, prefills, decodes, standbys, 1), strict=True):
            for number in range(1, count + 1):
                await hurt.start(role, f"{role.value}-{number}")
        for name in made.processes:
            await made.until_ready(name)
        for name in made.processes:
            made.idle.note(await made.metrics(name))
        yield hurt
