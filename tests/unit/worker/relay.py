"""A relay in one process: prefill and decode workers on scripted engines, a memory bus, and a KV way that can fail."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from services.decode.worker import DecodeWorker
from services.prefill.worker import PrefillWorker
from shared.config import FleetSettings
from shared.engine import EngineInfo
from shared.errors import BatonError, KvRefused, WorkerLost
from shared.kv import Staging
from shared.kv.arena import Arena
from shared.kv.growth import Growing
from shared.messages import (
    Accepted,
    Cancel,
    Endpoint,
    Failed,
    Finished,
    Frame,
    Group,
    HandedOff,
    KvGrant,
    Member,
    PrefillRequest,
    Rejected,
    Request,
    Role,
    ScenarioMap,
    State,
    Status,
    ToGateway,
    decode,
)
from shared.subjects import Subjects
from shared.tasks import Tasks
from shared.worker.frames import FrameSender
from shared.worker.metrics import WorkerMetrics
from shared.worker.peers import Peers
from shared.worker.standing import Standing
from tests.fakes import Hub, MemoryBus
from tests.unit.worker.scripted import INFO, Pieces, PlainText, ScriptedEngine

EPOCH = (1, 1)
SUBJECTS = Subjects()
FAST = FleetSettings(offer_timeout_s=0.5, push_timeout_s=2.0, progress_s=1.0)


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition; the time is for a hang, never for the verdict."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # conditions have no event
            await asyncio.sleep(0.001)


class KvWay:
    """Sender and receiver in one: pushes are copies, unless the test says otherwise."""

    def __init__(self) -> None:
        self.granted: dict[bytes, _Push] = {}
        self.pushes = 0
        self.links = 0
        self.grows = True
        self.growing: list[Growing] = []  # pushes of buffers that grow
        self.moved = 0  # bytes of the last of them
        self.growth_breaks: list[BatonError] = []  # raised by the next of them
        self.may_push = asyncio.Event()
        self.may_push.set()
        self.breaks: list[BatonError] = []  # raised by the next pushes
        self.arrives_anyway = False  # a push that breaks has reached the receiver all the same
        self.landed: Callable[[], object] = lambda: None  # called when the last byte is there, before it is taken
        self.told: Callable[[], object] = lambda: True  # when the sender notices that such a push broke

    @property
    def may_grow(self) -> bool:
        return self.grows

    async def push_growing(self, growing: Growing, grant: KvGrant) -> str:
        """A copy of what is final whenever that is more, as over a wire; broken where the test says so."""
        self.growing.append(growing)
        await self.may_push.wait()
        error = self.growth_breaks.pop(0) if self.growth_breaks else None
        push = self.granted.pop(grant.ticket, None)
        if push is None:
            raise KvRefused("ticket", "no such ticket")
        push.begun = True
        while growing.completed_at is None:
            if growing.stopped or push.arrived.cancelled() or (error is not None and not self.arrives_anyway):
                broken = error or WorkerLost("broken off")
                push.fail(broken)
                raise broken
            push.staging.view[: growing.final] = growing.view[: growing.final]
            self.moved = growing.final
            await asyncio.sleep(0.001)
        size = len(growing.view)
        push.staging.view[:size] = growing.view
        push.staging.view[size:] = growing.wait_tail(lambda: None)
        push.arrived.set_result(push.staging)
        if error is not None:
            await until(self.told)
            raise error
        return "memory"

    async def push(self, staging: Staging, grant: KvGrant) -> str:
        self.pushes += 1
        await self.may_push.wait()
        error = self.breaks.pop(0) if self.breaks else None
        push = self.granted.pop(grant.ticket, None)
        if push is None:
            raise KvRefused("ticket", "no such ticket")
        if error is not None and not self.arrives_anyway:
            push.fail(error)
            raise error
        push.begun = True
        push.staging.view[:] = staging.view
        push.arrived.set_result(push.staging)
        self.landed()
        if error is not None:
            await until(self.told)
            raise error
        return "memory"


class _Receiver:
    def __init__(self, way: KvWay, arena: Arena) -> None:
        self._way = way
        self._arena = arena
        self.endpoints = [Endpoint("memory", "here")]
        self.expected = self.links = 0

    def expect(self, key: str, nbytes: int, deadline_ms: int) -> "_Push":
        push = _Push(self._way, self._arena.reserve(nbytes))
        self._way.granted[push.ticket] = push
        return push


class _Push:
    def __init__(self, way: KvWay, staging: Staging) -> None:
        self.ticket = secrets.token_bytes(16)
        self.staging = staging
        self.arrived: asyncio.Future[Staging] = asyncio.get_running_loop().create_future()
        self._way = way
        self._taken = False
        self.begun = False

    async def received(self) -> Staging:
        staging = await asyncio.shield(self.arrived)
        self._taken = True
        return staging

    def fail(self, error: BatonError) -> None:
        if not self.arrived.done():
            self.arrived.set_exception(KvRefused("checksum", str(error)))
            self.arrived.exception()

    def cancel(self) -> None:
        self._way.granted.pop(self.ticket, None)
        self.arrived.cancel()
        if not self._taken:
            self.staging.release()


@dataclass
class Gateway:
    """Collects what workers say, stream by stream."""

    bus: MemoryBus
    frames: list[Frame] = field(default_factory=list)
    handed_off: list[HandedOff] = field(default_factory=list)

    async def listen(self, name: str = "gateway-1") -> None:
        await self.bus.subscribe(SUBJECTS.frames(name), lambda d: self.hear(decode(d.data, ToGateway)))

    def hear(self, message: Frame | HandedOff) -> None:
        if isinstance(message, Frame):
            self.frames.append(message)
        else:
            self.handed_off.append(message)

    async def offer(self, request: Request, prefill: str = "p1") -> Accepted | Rejected:
        subject = SUBJECTS.prefill("chat", prefill)
        answer: Accepted | Rejected = await self.bus.request(
            subject, PrefillRequest(request), Accepted | Rejected, timeout_s=5.0
        )
        return answer

    async def cancel(self, request_id: str, attempt: int) -> None:
        await self.bus.publish(SUBJECTS.cancel("chat"), Cancel(request_id, attempt))

    def text(self, stream: int = 1) -> str:
        return "".join(text for _, text in self.tokens(stream))

    def tokens(self, stream: int = 1, attempt: int = 0) -> list[tuple[int, str]]:
        """Index and text of each entry, in order of arrival."""
        return [
            (frame.indexes[k], frame.texts[k])
            for frame in self.frames
            for k in range(len(frame.ids))
            if frame.streams[k] == stream and frame.attempts[k] == attempt
        ]

    def endings(self, stream: int = 1) -> list[Finished | Failed]:
        return [ending for frame in self.frames for ending in frame.ended if ending.stream == stream]


@dataclass
class Relay:
    """Workers p1 and d1 (and d2), on one bus."""

    hub: Hub
    gateway: Gateway
    way: KvWay
    spans: InMemorySpanExporter
    prefill: PrefillWorker
    decodes: dict[str, DecodeWorker]
    standings: dict[str, Standing]
    states: dict[str, State]
    freed: list[str]
    watching: Tasks  # of the engines; a failure there ends the instance

    def engine(self, name: str) -> ScriptedEngine:
        engine = self.standings[name].engine
        assert isinstance(engine, ScriptedEngine)
        return engine

    def held(self) -> dict[str, int]:
        """What is held anywhere; all zeros after load."""
        counts = {"prefill": len(self.prefill.roster), "tickets": len(self.way.granted)}
        for name, worker in self.decodes.items():
            counts[name] = len(worker.roster)
        for name, standing in self.standings.items():
            counts[f"{name} staging"] = standing.arena.in_use
            counts[f"{name} engine"] = standing.engine.load().sequences
        return counts

    async def quiet(self) -> None:
        """Return when nothing is held any more and the gateway has heard everything."""
        await until(lambda: not any(self.held().values()))
        await self.gateway.bus.flush(1.0)  # what was published last is on its way to the gateway

    async def steps(self, name: str, count: int) -> None:
        """Let a decode make steps, once it has something to decode."""
        for _ in range(count):
            await until(lambda: self.engine(name).decoding)
            self.engine(name).step()
            await asyncio.sleep(0)

    async def run(self, name: str, done: Callable[[], bool]) -> None:
        """Let a decode make steps whenever it has something to decode, until all is done."""
        while not done():
            await until(lambda: self.engine(name).decoding or done())
            if self.engine(name).decoding:
                self.engine(name).step()
            await asyncio.sleep(0)

    def metric(self, worker: str, name: str, **labels: str) -> float:
        registry = self.standings[worker].metrics.registry
        return registry.get_sample_value(name, labels) or 0.0


def stand(
    hub: Hub, name: str, *, states: dict[str, State], freed: list[str], provider: TracerProvider, info: EngineInfo
) -> Standing:
    bus, metrics = hub.bus(name), WorkerMetrics(CollectorRegistry())
    states[name] = State.READY
    return Standing(
        name=name,
        scenario="chat",
        host="here",
        bus=bus,
        subjects=SUBJECTS,
        tasks=Tasks(name),
        fleet=FAST,
        engine=ScriptedEngine(info),
        pieces=Pieces(),
        open_text=lambda request, generated: PlainText(request.stopping.stop, generated),
        arena=Arena(1 << 16),
        metrics=metrics,
        tracer=provider.get_tracer(name),
        sender=FrameSender(bus, SUBJECTS, name, lambda: EPOCH, patience_s=1.0),
        peers=Peers("chat", "main", metrics),
        epoch=lambda: EPOCH,
        unready=lambda: "" if states[name] is State.READY else states[name].value,
        freed=lambda: freed.append(name),
    )


def member_map(decodes: list[str], version: int = 1) -> ScenarioMap:
    members = [Member(name, EPOCH) for name in decodes]
    return ScenarioMap("chat", version, EPOCH, [Group("main", prefill=[Member("p1", EPOCH)], decode=members)])


def status_of(name: str, role: Role, *, free: int = 2, number: int = 1) -> Status:
    return Status(name, EPOCH, role, State.READY, "chat", "main", slots=2, free=free, number=number)


@asynccontextmanager
async def relay(
    *, decodes: tuple[str, ...] = ("d1",), info: EngineInfo = INFO, local_below: int = 0, overlap_from: int = 0
) -> AsyncIterator[Relay]:
    """Run the workers; at the end everything must be free and no task left."""
    hub, way, states, freed = Hub(), KvWay(), dict[str, State](), list[str]()
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    standings = {
        name: stand(hub, name, states=states, freed=freed, provider=provider, info=info) for name in ("p1", *decodes)
    }
    async with AsyncExitStack() as stack:
        gateway = Gateway(hub.bus("gateway"))
        await gateway.listen()
        prefill = PrefillWorker(standings["p1"], way, slots=8, overlap_from=overlap_from)
        workers = {
            name: DecodeWorker(standings[name], _Receiver(way, standings[name].arena), local_below) for name in decodes
        }
        watching = Tasks("watching")
        for standing in standings.values():
            stack.callback(standing.arena.close)
            stack.push_async_callback(standing.tasks.close)
            stack.push_async_callback(standing.engine.close)
        stack.push_async_callback(watching.close)
        await prefill.listen(stack)
        _ = watching.spawn(prefill.watch(), name="watch")
        for worker in workers.values():
            await worker.listen(stack)
            _ = watching.spawn(worker.pump(), name="pump")
        peers = standings["p1"].peers
        peers.learn(member_map(list(decodes)))
        for name in ("p1", *decodes):
            peers.learn(status_of(name, Role.PREFILL if name == "p1" else Role.DECODE))
        yield Relay(hub, gateway, way, exporter, prefill, workers, standings, states, freed, watching)
