"""A real gateway over real NATS and Redis, and a fleet without a model that does what a test tells it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from services.gateway.service import TOKENIZER_THREADS, Gateway
from shared.bus import Delivery
from shared.config import (
    Config,
    FleetSettings,
    GatewaySettings,
    InstanceSettings,
    ModeratorSettings,
    Nats,
    RedisSettings,
    ScenarioSettings,
    TenantSettings,
)
from shared.errors import Code
from shared.lifecycle import serve
from shared.messages import (
    Accepted,
    Cancel,
    Claim,
    Claimed,
    Claims,
    Failed,
    Finish,
    Finished,
    Frame,
    Group,
    HandedOff,
    Logprobs,
    Member,
    PrefillRequest,
    Rejected,
    Request,
    Role,
    ScenarioMap,
    State,
    Status,
    TokenLogprob,
    decode,
)
from shared.nats_bus import NatsBus
from shared.reloading import Reloading
from shared.stopping import Stopping
from shared.subjects import Subjects

EPOCH = (1, 1)
WORDS = ["Once", " upon", " a", " time", "\U0001f469\u200d", "\U0001f680", ' "there"', "\n", "was", "."]


class Fleet:
    """One prefill and one decode, unless a test says otherwise.

    Every request gets WORDS, as far as max_tokens allows, from where it stands.
    """

    def __init__(
        self, bus: NatsBus, subjects: Subjects, scenario: str = "chat", groups: list[Group] | None = None
    ) -> None:
        self.bus, self.subjects, self.scenario = bus, subjects, scenario
        self.groups = groups or [Group("g1", [Member("p1", EPOCH)], [Member("d1", EPOCH)])]
        self.members = {
            member.instance: (group, role)
            for group in self.groups
            for role, members in ((Role.PREFILL, group.prefill), (Role.DECODE, group.decode))
            for member in members
        }
        self.offers: list[tuple[str, str]] = []  # instance and request
        self.full: set[str] = set()  # who has no slot
        self.requests: list[Request] = []
        self.cancels: list[Cancel] = []
        self.rejects: Rejected | None = None
        self.accepts = asyncio.Event()
        self.may_speak = asyncio.Event()  # nothing is generated while it is clear
        self.fails_at: dict[tuple[int, int], Failed] = {}  # by (attempt, index)
        self.silent_at: set[tuple[int, int]] = set()  # (attempt, index) from which on nothing is said
        self.held: dict[str, Request] = {}
        self.headers: list[dict[str, str]] = []
        self.present = True
        self._tasks: set[asyncio.Task[None]] = set()
        self.calm()

    def calm(self) -> None:
        """Forget what a test had told."""
        self.requests.clear()
        self.cancels.clear()
        self.fails_at.clear()
        self.silent_at.clear()
        self.held.clear()
        self.headers.clear()
        self.offers.clear()
        self.full.clear()
        self.rejects = None
        self.accepts.set()
        self.may_speak.set()
        self.present = True
        self.words: Callable[[Request], list[str]] = lambda request: WORDS
        self.logprob: Callable[[Request], float] = lambda request: -0.5

    async def open(self) -> None:
        scenario, subjects = self.scenario, self.subjects
        await self.bus.subscribe(subjects.cancel(scenario), lambda d: self.cancels.append(decode(d.data, Cancel)))
        await self.bus.subscribe(subjects.claim(scenario), lambda d: self._spawn(self._tell(d)))
        for name in self.members:
            await self.bus.subscribe(subjects.prefill(scenario, name), self._on_offer)
            await self.bus.subscribe(subjects.presence(name), lambda d: None)
        self._spawn(self._beat())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work) -> None:  # noqa: ANN001
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

    async def _tell(self, delivery: Delivery) -> None:
        """It has what it has not ended, and keeps nothing."""
        for name in decode(delivery.data, Claim).request_ids:
            if request := self.held.get(name):
                await self.bus.respond(delivery, Claimed("d1", request))
        for name in self.members:
            await self.bus.respond(delivery, Claims(name, 0))

    async def _beat(self) -> None:
        number = 0
        while True:
            number += 1
            scenario = self.scenario
            shown = ScenarioMap(scenario, number, EPOCH, self.groups if self.present else [])
            await self.bus.publish(self.subjects.map(scenario), shown)
            for name, (group, role) in self.members.items():
                free = 0 if name in self.full else 64
                status = Status(name, EPOCH, role, State.READY, scenario, group.name, 64, free, number=number)
                await self.bus.publish(self.subjects.status(scenario, name), status)
            await asyncio.sleep(0.05)

    def _on_offer(self, delivery: Delivery) -> None:
        name = delivery.subject.rpartition(".")[2]
        self._spawn(self._serve(delivery, name, decode(delivery.data, PrefillRequest).request))

    async def _serve(self, delivery: Delivery, name: str, request: Request) -> None:
        self.requests.append(request)
        self.offers.append((name, request.request_id))
        self.headers.append(delivery.headers)
        await self.accepts.wait()
        if self.rejects is not None:
            await self.bus.respond(delivery, replace_rejected(self.rejects, name, request))
            return
        await self.bus.respond(delivery, Accepted(request.request_id, request.attempt, name, EPOCH))
        self.held[request.request_id] = request
        await self.may_speak.wait()
        at = self.members[name][0].decode[0].instance
        handed = HandedOff(request.stream, request.request_id, request.attempt, at, EPOCH)
        await self.bus.publish(self.subjects.frames(request.gateway), handed)
        last = min(len(self.words(request)), request.stopping.max_tokens)
        for index in range(request.generated, last):
            if (request.attempt, index) in self.silent_at:
                return
            if failure := self.fails_at.get((request.attempt, index)):
                self.held.pop(request.request_id, None)
                await self._frame(request, ended=[replace_failed(failure, request)])
                return
            await self._frame(request, index)
        self.held.pop(request.request_id, None)
        reason = Finish.LENGTH if last == request.stopping.max_tokens else Finish.STOP
        await self._frame(
            request, ended=[Finished(request.stream, request.attempt, reason, last, request.prompt_tokens, 1)]
        )

    async def _frame(self, request: Request, index: int | None = None, **more: object) -> None:
        entries = [] if index is None else [index]
        words = self.words(request)
        texts = [words[k] for k in entries]
        if request.sampling.logprobs is not None and entries:
            said = TokenLogprob(entries[0], self.logprob(request), texts[0], texts[0].encode())
            more["logprobs"] = [Logprobs(0, said, [said] * request.sampling.logprobs)]
        frame = Frame(
            "d1",
            EPOCH,
            [request.stream] * len(entries),
            [request.attempt] * len(entries),
            entries,
            entries,
            texts,
            **more,
        )  # type: ignore[arg-type]
        await self.bus.publish(self.subjects.frames(request.gateway), frame, traced=False)


def replace_rejected(said: Rejected, name: str, request: Request) -> Rejected:
    return Rejected(request.request_id, request.attempt, name, said.code, said.message, said.retryable)


def replace_failed(said: Failed, request: Request) -> Failed:
    return Failed(request.stream, request.attempt, said.code, said.message, said.retryable)


def failed(code: Code, *, retryable: bool) -> Failed:
    return Failed(0, 0, code, "as the test wants it", retryable)


class House:
    """The gateway, its address, and the fleet behind it."""

    def __init__(
        self,
        gateway: Gateway,
        fleet: Fleet,
        stopping: Stopping,
        life: asyncio.Future[int],
    ) -> None:
        self.gateway, self.fleet, self.subjects = gateway, fleet, fleet.subjects
        self.stopping, self.life = stopping, life
        self.ends_with = 0
        self.reloading: Reloading
        self.found: list[Config]  # what a reload finds
        self.port = gateway.port
        self.url = f"http://127.0.0.1:{gateway.port}"

    async def until(self, condition: Callable[[], bool], what: str, within_s: float = 5.0) -> None:
        """Wait for a condition, with a deadline."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():  # noqa: ASYNC110  the gateway's insides announce nothing
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"{what} did not come within {within_s:g} s") from None

    async def reload(self, **settings: object) -> list[str]:
        """Change settings of the gateway in its configuration, and reload it."""
        before = self.found[0]
        self.found[0] = replace(before, gateway=replace(before.gateway, **settings))  # type: ignore[arg-type]
        return await self.reloading.reload()

    async def empty(self) -> None:
        """Nothing of any request is left in the gateway."""
        relay = self.gateway._relay
        await self.until(
            lambda: (
                not (len(relay) or len(relay.records) or self.gateway._desk.in_flight or self.gateway._dispatcher.open)
            ),
            "an empty gateway",
        )


@contextlib.asynccontextmanager
async def open_house(
    nats: Nats,
    redis: RedisSettings,
    *,
    instance: str = "gateway-1",
    tenant: dict[str, TenantSettings] | None = None,
    scenario: dict[str, Any] | None = None,
    groups: list[Group] | None = None,
    others: dict[str, dict[str, Any]] | None = None,
    moderation: dict[str, ModeratorSettings] | None = None,
    **settings: object,
) -> AsyncIterator[House]:
    """Start everything; ready when a request would be served."""
    fleet_settings = FleetSettings(offer_timeout_s=1.0, progress_s=2.0, heartbeat_s=0.1, drain_s=2.0)
    config = Config(
        nats=nats,
        redis=redis,
        gateway=GatewaySettings(**{"port": 0, **settings}),  # type: ignore[arg-type]
        fleet=fleet_settings,
        scenario={
            name: ScenarioSettings("sim", engine="sim", request_timeout_s=20.0, **more)
            for name, more in {"chat": scenario or {}, **(others or {})}.items()
        },
        instance=InstanceSettings(id=instance),
        tenant=tenant or {},
        moderation=moderation or {},
    )
    bus = await NatsBus.open(replace(nats), service="tests")
    subjects = Subjects(nats.prefix)
    fleet = Fleet(bus, subjects, groups=groups)
    await fleet.open()
    gateway, stopping = Gateway(), Stopping()
    gateway.prepare(config)
    found = [config]
    reloading = Reloading(config, lambda: found[0])
    life = asyncio.ensure_future(serve(gateway, config, stopping, reloading))
    try:
        deadline = asyncio.get_running_loop().time() + 10
        while not gateway.port or gateway.why_not_ready():
            assert not life.done(), "the gateway stopped"
            assert asyncio.get_running_loop().time() < deadline, "the gateway does not get ready"
            await asyncio.sleep(0.01)
        house = House(gateway, fleet, stopping, life)
        house.reloading, house.found = reloading, found
        both = threading.Barrier(TOKENIZER_THREADS)  # started now, so that they are no test's of its own
        await asyncio.gather(*(asyncio.wrap_future(gateway._threads.submit(both.wait, 5)) for _ in range(both.parties)))
        yield house
    finally:
        stopping.ask("the tests are over")
        code = await life
        await fleet.close()
        await bus.close()
    assert code == house.ends_with
