"""A whole cluster of real processes that a test may kill, freeze, starve and start again.

Owns the servers, the services and their end: nothing outlives the `async with`, however the test went. Chooses no
fault and judges nothing; what is left behind is judged by `leaks`.
"""

import asyncio
import json
import os
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from services.local.children import Command
from shared import keys
from shared.errors import BadRequest
from shared.messages import (
    ExplainOrder,
    InstanceRecord,
    Rejected,
    Role,
    ScaleOrder,
    ScenarioMap,
    Told,
    UpgradeOrder,
    decode,
)
from shared.nats_bus import NatsBus
from shared.subjects import Subjects
from tests.faults.cluster_process import Process
from tests.faults.leaks import Idle
from tests.servers import HOST, NatsServer, RedisServer, free_port

REPO = Path(__file__).parents[2]
READY_S = 60.0
"""For a hang, never for a verdict."""
CONFIG: dict[str, Any] = {
    "kv": {"staging_mb": 8},
    "monitor": {"port": 0},
    "scenario": {
        "chat": {
            "model": "sim",
            "engine": "sim",
            "prefill_slots": 8,
            "engine_options": {
                "prefill_ms": [0, 0.01, 2],
                "decode_step_ms": 5,
                "max_num_seqs": 16,
                "kv_bytes_per_token": 512,
                "max_model_len": 4096,
            },
        }
    },
}
"""The clockwork ([fleet]) is the product's own unless a test says otherwise."""


class Cluster:
    """The servers and the services."""

    limits: Mapping[str, str] = {"OMP_NUM_THREADS": "1"}
    """Variables of all services, so that many engines on few cores do not wait for each other."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.nats = NatsServer(folder)
        self.redis = RedisServer(folder, durable=True)
        self.processes: dict[str, Process] = {}
        self.everyone: list[Process] = []  # the dead and replaced ones too
        self.idle = Idle()
        self.config = folder / "baton.toml"
        self.config.write_text(_toml(config))
        self._http: aiohttp.ClientSession | None = None
        self._ports: dict[str, tuple[int, int]] = {}

    async def start(
        self,
        role: Role | str,
        name: str,
        *,
        failpoints: str = "",
        env: dict[str, str] | None = None,
        module: str | None = None,
    ) -> Process:
        """Start a service, without waiting for anything. A name that was used before keeps its ports.

        `env`: of this instance alone, such as another BATON_NATS__URL. `module`: run instead of the service's own.
        """
        role = Role(role)
        port, health_port = self._ports.setdefault(name, (free_port(), free_port()))
        nats = self.nats.settings()
        environ = {
            **{key: text for key, text in os.environ.items() if not key.startswith(("BATON_", "OTEL_"))},
            "BATON_NATS__URL": nats.url,
            "BATON_NATS__USER": nats.user,
            "BATON_NATS__PASSWORD": nats.password,
            "BATON_REDIS__URL": self.redis.settings().url,
            "BATON_GATEWAY__PORT": str(port),
            "BATON_INSTANCE__HEALTH_PORT": str(health_port),
            **self.limits,
            "PYTHONUNBUFFERED": "1",
            **({"BATON_FAILPOINTS": failpoints} if failpoints else {}),
            **(env or {}),
        }
        place = [] if role in (Role.STANDBY, Role.MONITOR, Role.GATEWAY) else ["--scenario", "chat", "--group", "main"]
        argv = [sys.executable, "-m", module or f"services.{role.value}", "--config", str(self.config), "--id", name]
        command = Command(name, [*argv, *place], environ, self.folder / f"{name}.log", REPO)
        process = Process(role, command, health_port)
        self.processes[name] = process
        self.everyone.append(process)
        return process

    def url(self, n: int = 1) -> str:
        """Base URL of gateway n."""
        return f"http://{HOST}:{self._ports[f'gateway-{n}'][0]}"

    async def ready(self, n: int = 1) -> None:
        """Wait until gateway n says that a request would be served."""
        await self.until_ready(f"gateway-{n}")

    async def until_ready(self, name: str, seconds: float = READY_S) -> None:
        """Wait until an instance's own /readyz says so; a standby that becomes a worker answers twice."""
        deadline = time.monotonic() + seconds
        while not await self.is_ready(name):
            going_on = self.processes[name].alive and time.monotonic() < deadline
            assert going_on, f"{name} does not get ready:\n{self.tail(name)}"
            await asyncio.sleep(0.05)

    async def is_ready(self, name: str) -> bool:
        """Whether an instance says that it is ready now."""
        return await self._status(f"{self.processes[name].health_url}/readyz") == 200

    async def metrics(self, name: str) -> dict[str, float]:
        """Gauges and counters of an instance, labels dropped and summed. Raises OSError where nobody answers."""
        sums: defaultdict[str, float] = defaultdict(float)
        timeout = aiohttp.ClientTimeout(total=5)
        async with self.http.get(f"{self.processes[name].health_url}/metrics", timeout=timeout) as answer:
            for line in (await answer.text()).splitlines():
                if line and not line.startswith("#"):
                    sums[line.split("{")[0].split(" ")[0]] += float(line.rsplit(" ", 1)[1])
        return sums

    async def records(self) -> list[InstanceRecord]:
        """What the instances last wrote of themselves to Redis."""
        client = Redis.from_url(self.redis.settings().url)
        try:
            found = [await client.get(key) async for key in client.scan_iter("baton:instance:*")]
        finally:
            await client.aclose()
        return sorted(
            (decode(one, InstanceRecord) for one in found if isinstance(one, bytes)), key=lambda record: record.id
        )

    async def map(self, scenario: str = "chat") -> ScenarioMap:
        """The map that Redis has; an empty one where it has none."""
        client = Redis.from_url(self.redis.settings().url)
        try:
            data = await client.get(keys.scenario_map(scenario))
        finally:
            await client.aclose()
        return decode(data, ScenarioMap) if isinstance(data, bytes) else ScenarioMap(scenario, 0, (0, 0))

    async def order(self, order: ScaleOrder | UpgradeOrder | ExplainOrder) -> Told:
        """Give the leading monitor an order. Raises BadRequest where it refuses."""
        bus = await NatsBus.open(self.nats.settings(), service="operator")
        try:
            answer: Told | Rejected = await bus.request(Subjects().orders(), order, Told | Rejected, timeout_s=READY_S)
        finally:
            await bus.close()
        if isinstance(answer, Rejected):
            raise BadRequest(answer.message)
        return answer

    async def holders(self, gauge: str = "baton_worker_streams", role: Role = Role.DECODE) -> list[str]:
        """Name the living workers of a role that hold anything, the one that holds most first."""
        names = [name for name, one in self.processes.items() if one.role is role and one.alive and not one.frozen]
        held = {name: (await self.metrics(name)).get(gauge, 0.0) for name in names}
        return sorted((name for name in names if held[name]), key=lambda name: -held[name])

    async def quiet(self, seconds: float = 20) -> None:
        """Wait until every living process holds what it held when idle; raises AssertionError with what is left."""
        deadline = time.monotonic() + seconds
        while left := await self._left():
            if time.monotonic() > deadline:
                raise AssertionError(f"still held after {seconds:g} s:\n" + "\n".join(left))
            await asyncio.sleep(0.1)

    async def _left(self) -> list[str]:
        left: list[str] = []
        for name, process in self.processes.items():
            if process.alive and not process.frozen:
                try:
                    left += self.idle.left(name, await self.metrics(name))
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    left.append(f"{name} does not say: {error!r}")
        return left

    def tail(self, name: str, size: int = 3000) -> str:
        """What a process printed last."""
        return self.processes[name].log.read_text(errors="replace")[-size:]

    # ---- beginning and end -------------------------------------------------------------------------------------------

    @property
    def http(self) -> aiohttp.ClientSession:
        """For questions to health ports: a new connection each time, so that nothing is left at the other end."""
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        return self._http

    async def open(self, counts: Mapping[Role, int], modules: Mapping[Role, str]) -> None:
        """Start everything, and note what an idle instance holds."""
        self.nats.start()
        self.redis.start()
        for role, count in counts.items():
            for number in range(1, count + 1):
                await self.start(role, f"{role.value}-{number}", module=modules.get(role))
        names = list(self.processes)
        if not (counts[Role.PREFILL] and counts[Role.DECODE]):
            names = [name for name in names if self.processes[name].role is not Role.GATEWAY]
        await asyncio.gather(*(self.until_ready(name) for name in names))
        for name in names:
            self.idle.note(await self.metrics(name))

    async def close(self) -> None:
        """End everything; nothing is left, whatever state it was in."""
        for process in self.everyone:
            process.kill()
        for process in self.everyone:
            await process.ended()
        if self._http is not None:
            await self._http.close()
        self.nats.kill()
        self.redis.kill()

    async def _status(self, url: str) -> int:
        try:
            async with self.http.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0


@asynccontextmanager
async def cluster(
    folder: Path,
    *,
    gateways: int = 1,
    prefills: int = 2,
    decodes: int = 2,
    standbys: int = 0,
    monitors: int = 1,
    options: dict[str, object] | None = None,
    toml: str = "",
    modules: Mapping[Role, str] | None = None,
) -> AsyncIterator[Cluster]:
    """Start a cluster on the sim engine and wait until every gateway is ready.

    `options`: of the engine. `modules`: run instead of the services' own, by role.
    """
    config = _merged(CONFIG, {"scenario": {"chat": {"prefill": prefills, "decode": decodes}}})
    config = _merged(config, {"scenario": {"chat": {"engine_options": options or {}}}})
    made = Cluster(folder, _merged(config, tomllib.loads(toml)))
    counts = (monitors, prefills, decodes, standbys, gateways)
    roles = (Role.MONITOR, Role.PREFILL, Role.DECODE, Role.STANDBY, Role.GATEWAY)
    try:
        await made.open(dict(zip(roles, counts, strict=True)), modules or {})
        yield made
    finally:
        await made.close()


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(under)
    for key, value in over.items():
        both[key] = _merged(both.get(key, {}), value) if isinstance(value, Mapping) else value
    return both


def _toml(table: Mapping[str, Any], path: str = "") -> str:
    """Write a table; JSON's forms of strings, numbers and lists are TOML's too."""
    plain = [f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, Mapping)]
    head = f"[{path}]\n" if path and plain else ""
    below = [
        _toml(value, f"{path}.{key}" if path else key) for key, value in table.items() if isinstance(value, Mapping)
    ]
    return head + "".join(plain) + "".join(below)
