"""One gateway: puts its parts together, opens both entrances, drains and closes them.

Owns the HTTP server, the subscriptions and the sweep. What the parts do is theirs.
"""

import asyncio
import gc
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from services.gateway.access.gate import open_gate
from services.gateway.content.moderation import Moderation
from services.gateway.desk import Desk
from services.gateway.http.entrance import HttpEntrance
from services.gateway.http.terms import Terms
from services.gateway.metrics import Metrics
from services.gateway.nats.entrance import NatsEntrance
from services.gateway.prompts.scenarios import Scenarios, open_scenarios
from services.gateway.relay.doubts import Doubts
from services.gateway.relay.hearing import Hearing
from services.gateway.relay.offers import Offers
from services.gateway.relay.presence import PresenceProbes
from services.gateway.relay.relay import Relay
from services.gateway.relay.stalls import Stalls
from services.gateway.resume.claims import Claimant
from services.gateway.strategies import Strategies
from services.gateway.traffic import TrafficBook, TrafficReports
from shared.config import Config
from shared.errors import Draining
from shared.instance import Instance
from shared.lifecycle import Load
from shared.messages import Role, Traffic
from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import DispatchRules
from shared.policy.placement import FleetView, ViewRules
from shared.policy.routes import RouteRules
from shared.subjects import GATEWAYS

SWEEP_S: Final = 0.5
CUT_S: Final = 0.5
TOKENIZER_THREADS: Final = 2


class Gateway:
    """The service that `shared.lifecycle` runs."""

    role: Role = Role.GATEWAY

    def __init__(self) -> None:
        self._bound = 0
        self.port = 0
        self._threads = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix="prompt")

    def prepare(self, config: Config) -> None:
        """Load the tokenizers, the rules of moderation and the certificate."""
        self._terms = Terms.read(config.gateway)
        self._moderation = Moderation(config, self._threads)
        self._scenarios = open_scenarios(config, self._threads)

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        """Connect the parts, subscribe, listen."""
        config = instance.config
        self._instance = instance
        self._bound = config.gateway.max_streams
        stack.callback(self._threads.shutdown, wait=False, cancel_futures=True)
        scenarios = self._scenarios
        metrics = Metrics(instance.telemetry.registry, lambda: instance.config.tenant)
        self._view = FleetView(_view_rules(config), watcher=instance.id)
        self._dispatcher = Dispatcher(self._view, _dispatch_rules(config), _route_rules(config))
        self._traffic = TrafficBook(scenarios)
        offers = Offers(instance.bus, instance.subjects, self._view, config.fleet.offer_timeout_s)
        self._relay = Relay(
            instance.id,
            view=self._view,
            dispatcher=self._dispatcher,
            offers=offers,
            tasks=instance.tasks,
            metrics=metrics,
            traffic=self._traffic,
            max_streams=config.gateway.max_streams,
        )
        stack.callback(self._relay.stop)
        records, bus, subjects = self._relay.records, instance.bus, instance.subjects
        claimant = Claimant(instance.id, bus, subjects, self._view, config.fleet.offer_timeout_s)
        where, scenario_of = self._dispatcher.where, self._relay.scenario_of
        doubts = Doubts(records, claimant, instance.tasks, where=where, scenario_of=scenario_of)
        self._stalls = Stalls(
            records,
            config.fleet,
            first_token_s=self._relay.first_token_s,
            tell=self._relay.handle,
            ask=doubts.ask,
            bus=instance.bus,
        )
        await self._moderation.open(instance, stack)
        gate = await open_gate(instance, stack)
        self._desk = Desk(
            self._relay,
            scenarios,
            gate,
            self._moderation,
            claimant,
            settings=config.gateway,
            metrics=metrics,
            tracer=instance.telemetry.tracer,
        )
        self._observe(metrics, scenarios)
        await self._open_bus(instance, scenarios, stack)
        await self._open_reports(instance, stack)
        await self._open_http(instance, metrics, stack)
        _ = instance.vital.spawn(self._sweep(), name="sweep")
        gc.freeze()  # what was loaded stays for good: the collector need not walk it while tokens wait

    def _observe(self, metrics: Metrics, scenarios: Scenarios) -> None:
        metrics.in_flight.set_function(lambda: self._desk.in_flight)
        metrics.streams.set_function(lambda: len(self._relay))
        metrics.held.labels("stream").set_function(lambda: len(self._relay.records))
        metrics.held.labels("request").set_function(lambda: self._dispatcher.open)
        metrics.held.labels("nats call").set_function(lambda: len(self._nats))
        for scenario in scenarios:
            metrics.waiting.labels(scenario.name).set_function(partial(self._dispatcher.waiting, scenario.name))

    async def _open_bus(self, instance: Instance, scenarios: Scenarios, stack: AsyncExitStack) -> None:
        names = [scenario.name for scenario in scenarios]
        bus, subjects = instance.bus, instance.subjects
        self._hearing = Hearing(bus, subjects, self._relay.handle)
        await self._hearing.open(names, instance.id, stack)
        await self._hearing.read_maps(names, instance.redis)
        frames = await bus.subscribe(subjects.frames(instance.id), self._relay.on_delivery)
        stack.push_async_callback(frames.stop)
        probing, holding = self._view.probing, self._dispatcher.holding
        presence = PresenceProbes(
            bus, subjects, probing, holding=holding, tell=self._relay.handle, look=self._hearing.sweep
        )  # fmt: skip
        await presence.open(stack)
        _ = instance.vital.spawn(presence.run(), name="presence")
        self._nats = NatsEntrance(bus, self._desk, instance.tasks)
        await self._nats.open(stack)
        _ = instance.vital.spawn(self._nats.run(), name="nats replies")
        self._intakes = []
        for name in names:
            cancels = await bus.subscribe(subjects.requests_cancel(name), self._nats.on_cancel)
            stack.push_async_callback(cancels.stop)
            intake = await bus.subscribe(subjects.requests(name), self._nats.listen(name), queue=GATEWAYS)
            stack.push_async_callback(intake.stop)
            self._intakes.append(intake)
        instance.telemetry.expose("baton_gateway_frames", self._relay.records.counts)
        instance.telemetry.expose("baton_gateway_nats", self._nats.counts)

    async def _open_reports(self, instance: Instance, stack: AsyncExitStack) -> None:
        def messages() -> list[Traffic]:
            return self._traffic.messages(
                instance.id,
                instance.epoch,
                waiting=self._dispatcher.waiting,
                open_now=self._dispatcher.open_of,
                listed=self._view.candidates.groups,
            )

        strategies = Strategies(instance.config.scenarios, self._view, self._dispatcher)
        reports = TrafficReports(instance.bus, instance.subjects, messages)
        stack.push_async_callback(reports.tell)
        look = partial(self._look, strategies)
        _ = instance.vital.spawn(reports.run(look), name="traffic")

    def _look(self, strategies: Strategies) -> None:
        strategies.look(self._relay.open_records(), time.monotonic())

    async def _open_http(self, instance: Instance, metrics: Metrics, stack: AsyncExitStack) -> None:
        self._http = HttpEntrance(instance, self._terms, self._desk, metrics, self.why_not_ready)
        metrics.connections.set_function(lambda: self._http.connections)
        self.port = await self._http.open(stack)
        stack.push_async_callback(self._cut)
        instance.require(self._why_no_worker)

    def why_not_ready(self) -> str:
        """Say why a request would not be served here; nothing when it would."""
        return self._instance.why_not_ready()

    def _why_no_worker(self) -> str:
        now = time.monotonic()
        for scenario in self._desk.scenarios:
            if all(self._view.next(scenario.name, role, now, "", ()) for role in (Role.PREFILL, Role.DECODE)):
                return ""
        return "no scenario has both a prefill and a decode"

    async def _sweep(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.monotonic()
            # a process that was stopped for a while must not take its own silence for the workers'
            elapsed_s, last = min(now - last, 2 * SWEEP_S), now
            self._stalls.sweep(elapsed_s)
            self._nats.sweep(elapsed_s)
            self._http.sweep(elapsed_s)

    def load(self) -> Load:
        """Say how many more streams may be opened."""
        held = len(self._relay)
        return Load(slots=self._bound, free=max(0, self._bound - held), busy=held > 0)

    async def drain(self, seconds: float) -> None:
        """Refuse new requests and let the open ones end; what is still open then is cut, and told so."""
        self._desk.draining = True
        self._http.drain()
        for intake in self._intakes:
            await intake.stop()
        give_up = time.monotonic() + seconds
        while self._desk.in_flight and time.monotonic() < give_up:  # noqa: ASYNC110  nobody need tell us
            await asyncio.sleep(0.05)
        await self._cut()
        await self._nats.flushed()

    async def _cut(self) -> None:
        """End what is still open with an error that its client sees, and give that a moment to go out."""
        self._desk.draining = True
        self._relay.cut(Draining("this gateway has stopped; go on with a stream at another one, or ask again"))
        give_up = time.monotonic() + CUT_S
        while self._desk.in_flight and time.monotonic() < give_up:  # noqa: ASYNC110  nobody need tell us
            await asyncio.sleep(0.02)


def _view_rules(config: Config) -> ViewRules:
    return ViewRules(heartbeat_s=config.fleet.heartbeat_s, misses=config.fleet.heartbeat_misses)


def _route_rules(config: Config) -> dict[str, RouteRules]:
    return {
        name: RouteRules(
            fill=scenario.feed == "fill",
            affinity=scenario.prefix_affinity,
            slack=scenario.affinity_slack,
            local_tokens=scenario.local_prefill_tokens,
        )
        for name, scenario in config.scenarios.items()
    }


def _dispatch_rules(config: Config) -> DispatchRules:
    return DispatchRules(
        max_waiting=config.gateway.max_waiting,
        max_open=config.gateway.max_streams,
        attempts=config.fleet.attempts,
        grace_s=config.gateway.absent_wait_s,
    )
