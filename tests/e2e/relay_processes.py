"""Prefill and decode as real processes on the sim engine; the test is their gateway and their monitor."""

import asyncio
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from redis.asyncio import Redis

from shared import keys
from shared.config import Nats, RedisSettings
from shared.errors import BatonError
from shared.messages import (
    Accepted,
    Cancel,
    Failed,
    Finished,
    Frame,
    Group,
    HandedOff,
    InstanceRecord,
    Member,
    PrefillRequest,
    Rejected,
    Request,
    Role,
    Sampling,
    ScenarioMap,
    State,
    Status,
    Stopping,
    ToGateway,
    decode,
    pack_tokens,
)
from shared.nats_bus import NatsBus
from shared.subjects import Subjects
from tests.waiting import until

REPO = Path(__file__).parents[2]
GATEWAY = "gateway-e2e"
CONFIG = """
[kv]
staging_mb = 8
[scenario.chat]
model = "sim"
engine = "sim"
[scenario.chat.engine_options]
prefill_ms = [0, 0.01, 2]
decode_step_ms = 4
max_num_seqs = 8
kv_bytes_per_token = 512
max_model_len = 2048
"""
LEAKS = ("baton_worker_slots_in_use", "baton_worker_staging_in_use_bytes", "baton_worker_streams")


@dataclass
class Heard:
    """What came for one stream, over all its attempts."""

    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    endings: list[Finished | Failed] = field(default_factory=list)
    enders: list[str] = field(default_factory=list)  # the worker that said each ending


@dataclass
class Worker:
    """One worker process."""

    name: str
    process: asyncio.subprocess.Process

    def kill(self) -> None:
        """End it as a crash would."""
        with suppress(ProcessLookupError):
            self.process.kill()

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(30):
            return await self.process.wait()


class Relay:
    """The fleet as the test sees it."""

    def __init__(self, bus: NatsBus, subjects: Subjects, redis: Redis, config: Path, environ: dict[str, str]) -> None:
        self.bus = bus
        self.subjects = subjects
        self.redis = redis
        self.workers: dict[str, Worker] = {}
        self.statuses: dict[str, Status] = {}
        self.heard: defaultdict[int, Heard] = defaultdict(Heard)
        self.handed_off: list[HandedOff] = []
        self.frames = 0
        self._config = config
        self._environ = environ
        self._version = 0

    async def listen(self) -> None:
        await self.bus.subscribe(self.subjects.frames(GATEWAY), lambda d: self._hear(decode(d.data, ToGateway)))
        await self.bus.subscribe(self.subjects.status("chat"), lambda d: self._see(decode(d.data, Status)))

    def _see(self, status: Status) -> None:
        self.statuses[status.instance] = status

    def _hear(self, message: Frame | HandedOff) -> None:
        if isinstance(message, HandedOff):
            self.handed_off.append(message)
            return
        self.frames += 1
        for k, stream in enumerate(message.streams):
            heard = self.heard[stream]
            heard.ids.append(message.ids[k])
            heard.texts.append(message.texts[k])
            heard.indexes.append(message.indexes[k])
            heard.attempts.append(message.attempts[k])
        for ending in message.ended:
            self.heard[ending.stream].endings.append(ending)
            self.heard[ending.stream].enders.append(message.instance)

    async def start(self, role: Role, name: str) -> Worker:
        """Start a worker; `join` waits for it and puts it on the map."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{role.value}", "--config", str(self._config), "--id", name),
            cwd=REPO,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
        )
        self.workers[name] = worker = Worker(name, process)
        return worker

    async def join(self, *names: str) -> None:
        """Wait until these are ready, then publish the map with all that are."""
        await until(lambda: all(self._ready(name) for name in names), f"{names} are ready", 60)
        await self.publish_map()

    def _ready(self, name: str) -> bool:
        status = self.statuses.get(name)
        assert self.workers[name].process.returncode is None, f"{name} ended by itself"
        return status is not None and status.state is State.READY

    async def publish_map(self, *, without: str = "") -> None:
        self._version += 1
        members: dict[Role, list[Member]] = {Role.PREFILL: [], Role.DECODE: []}
        for status in self.statuses.values():
            if status.state is State.READY and status.instance != without:
                members[status.role].append(Member(status.instance, status.epoch))
        groups = [Group("main", members[Role.PREFILL], members[Role.DECODE])]
        await self.bus.publish(self.subjects.map("chat"), ScenarioMap("chat", self._version, (1, 1), groups))
        await self.bus.flush(5)
        await asyncio.sleep(0.05)  # the workers' statuses cross it; an early offer is only refused and repeated

    def request(self, number: int, *, max_tokens: int, attempt: int = 0, generated: tuple[int, ...] = ()) -> Request:
        """The same prompt for the same number, whatever the stream."""
        prompt = [65 + (number * 7 + k) % 26 for k in range(20 + number)]
        soon = int((time.time() + 60) * 1000)
        return Request(
            f"r{number}",
            attempt,
            GATEWAY,
            number,
            pack_tokens([*prompt, *generated]),
            len(prompt),
            Sampling(seed=number),
            Stopping(max_tokens=max_tokens),
            soon,
            soon,
        )

    async def offer(self, request: Request, prefill: str = "p1") -> Accepted | Rejected:
        subject = self.subjects.prefill("chat", prefill)
        answer: Accepted | Rejected = await self.bus.request(
            subject, PrefillRequest(request), Accepted | Rejected, timeout_s=5
        )
        return answer

    async def place(self, request: Request, prefill: str = "p1") -> None:
        """Offer until a slot is free."""
        async with asyncio.timeout(30):
            while isinstance(await self.offer(request, prefill), Rejected):  # noqa: ASYNC110  # a slot is told by status
                await asyncio.sleep(0.005)

    async def ended(self, number: int, count: int = 1) -> Heard:
        heard = self.heard[number]
        await until(lambda: len(heard.endings) >= count, f"stream {number} ended", 30)
        return heard

    async def cancel(self, request: Request) -> None:
        await self.bus.publish(self.subjects.cancel("chat"), Cancel(request.request_id, request.attempt))

    async def metrics(self, name: str) -> dict[str, float]:
        """The gauges and counters of a worker, labels dropped."""
        record = decode(await self.redis.get(keys.instance(name)), InstanceRecord)
        sums: defaultdict[str, float] = defaultdict(float)
        async with aiohttp.ClientSession() as session, session.get(f"{record.health_url}/metrics") as response:
            for line in (await response.text()).splitlines():
                if line and not line.startswith("#"):
                    sums[line.split("{")[0].split(" ")[0]] += float(line.rsplit(" ", 1)[1])
        return sums

    async def quiet(self, *names: str) -> None:
        """Wait until these workers hold nothing."""
        deadline = time.monotonic() + 15
        while left := {n: {k: m[k] for k in LEAKS if m[k]} for n in names if (m := await self.metrics(n))}:
            if not any(left.values()):
                return
            assert time.monotonic() < deadline, f"still held: {left}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def relay(
    nats: Nats, redis_settings: RedisSettings, folder: Path, *, prefills: int = 1, decodes: int = 1, text: str = CONFIG
) -> AsyncIterator[Relay]:
    """Start the workers, wait until they are ready and know each other; at the end none is left."""
    config = folder / "baton.toml"
    config.write_text(text)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BATON_")},
        "BATON_NATS__URL": nats.url,
        "BATON_NATS__USER": nats.user,
        "BATON_NATS__PASSWORD": nats.password,
        "BATON_NATS__PREFIX": nats.prefix,
        "BATON_REDIS__URL": redis_settings.url,
    }
    bus = await NatsBus.open(nats, service="gateway")
    redis = Redis.from_url(redis_settings.url)
    fleet = Relay(bus, Subjects(nats.prefix), redis, config, environ)
    try:
        await fleet.listen()
        names = [f"p{n + 1}" for n in range(prefills)] + [f"d{n + 1}" for n in range(decodes)]
        for name in names:
            await fleet.start(Role.PREFILL if name.startswith("p") else Role.DECODE, name)
        await fleet.join(*names)
        yield fleet
    finally:
        for worker in fleet.workers.values():
            worker.kill()
        for worker in fleet.workers.values():
            await worker.process.wait()
        with suppress(BatonError):
            await bus.close()
        await redis.aclose()
