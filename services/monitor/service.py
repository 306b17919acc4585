"""Feeds the decider of shared/policy/fleet/ with what it sees, and performs what the decider asks for.

Owns the order of the actions and the repeating of maps, which heals what NATS or Redis lost. Decides nothing.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from services.monitor.book import Book
from services.monitor.chronicle import Chronicle
from services.monitor.dashboard.figures import Figures
from services.monitor.desk import Desk
from services.monitor.ears import Ears
from services.monitor.governor import Governor
from services.monitor.journal import Journal
from services.monitor.leadership import Leadership
from services.monitor.orders import Orders
from services.monitor.performer import Performer
from services.monitor.plans import configured_plan, fleet_rules
from services.monitor.provisioners import make
from services.monitor.readings import Readings
from services.monitor.sight import Sight
from services.monitor.supply import Supply
from services.monitor.view import View
from services.monitor.watch import Watch
from shared.config import FleetSettings
from shared.errors import Unavailable
from shared.lifecycle import Instance, Load
from shared.messages import Epoch, Health, Role, State
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import Assign, AssignFailed, Event, LeaderGained, LeaderLost
from shared.policy.world import BusDown, BusUp, Tick
from shared.report import Report, report
from shared.tasks import Tasks

LOOK_S = 0.1
"""How often the clock and the connection are looked at."""
SHOWN = 500
"""Happenings that the page is given."""
SERVING = frozenset({Role.PREFILL, Role.DECODE, Role.STANDBY})
LATE = 1.5
"""Heartbeats without a status after which an instance's health port is tried."""

log = logging.getLogger(__name__)


class Monitor:
    """One monitor; of several, one leads and the others only observe."""

    role = Role.MONITOR

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        """Open the dashboard, then listen, then seek leadership."""
        self._instance = instance
        self._tasks = Tasks(instance.id, on_failure=self._task_failed)
        self._connected = True
        self._make(instance)
        config = instance.config
        view = View(
            instance.id,
            instance.telemetry,
            self.report,
            lambda: self._leadership.leading,
            figures=self._figures,
            happenings=lambda: [entry.happening for entry in self._journal.since()][-SHOWN:],
            order=self._desk.place,
            token=config.monitor.token,
        )
        stack.push_async_callback(view.close)
        await view.open(config.monitor.host, config.monitor.port)
        if self._supply is not None:
            stack.push_async_callback(self._supply.close)
        stack.push_async_callback(self._leadership.step_down)
        stack.push_async_callback(self._journal.write)  # its last words
        stack.push_async_callback(self._tasks.close)
        handlers = [*self._ears.handlers(instance.subjects), (instance.subjects.orders(), self._orders.handle)]
        for subject, handler in handlers:
            subscription = await instance.bus.subscribe(subject, handler)
            stack.push_async_callback(subscription.stop)
        for name, loop in self._loops(config.fleet):
            _ = self._tasks.spawn(loop, name=f"{instance.id} {name}")

    def _make(self, instance: Instance) -> None:
        rules = fleet_rules(instance.config)
        plans = [configured_plan(*scenario) for scenario in instance.config.scenarios.items()]
        self._fleet = Fleet(plans, rules)
        self._book = Book(instance.redis)
        self._sight, self._readings = Sight(), Readings()
        self._journal = Journal(instance.redis)
        self._chronicle = Chronicle(self._journal, self._sight.statuses)
        self._leadership = Leadership(instance, gained=self._gained, lost=self._lost)
        self._watch = Watch(self._book, self._leadership, instance.host, self._feed)
        provisioner = make(instance.config.monitor)
        self._supply: Supply | None = None
        if provisioner is not None:
            self._supply = Supply(
                provisioner, self._journal, seen=self._sight.living, may=self._leads, places=self._sight.places
            )
        self._performer = Performer(
            instance,
            self._book,
            self._leadership,
            self._feed,
            self._sight,
            supply=self._supply,
            assign_s=rules.assign_s,
            refused=self._refused,
        )
        self._governor = Governor(instance, self._fleet, self._journal, self._feed, self._spare)
        self._ears = Ears(self._sight, self._readings, self._feed, self._governor.see)
        self._orders = Orders(instance, self._leads, self._governor.order)
        self._desk = Desk(instance, self._orders, self._leads, self._feed)

    def _loops(self, fleet: FleetSettings) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        loops = [
            ("leadership", self._leadership.keep()),
            ("actions", self._performer.keep()),
            ("clock", self._keep_looking()),
            ("probes", self._keep_probing(fleet.heartbeat_s)),
            ("watch", self._keep_watching(fleet.lease_ttl_s / 3)),
            ("maps", self._keep_repeating(fleet.lease_ttl_s)),
            ("steering", self._governor.keep(self._leads)),
            ("journal", self._journal.keep(leading=self._leads, read_s=fleet.lease_ttl_s)),
        ]
        return loops if self._supply is None else [*loops, ("provisioner", self._supply.keep())]

    def load(self) -> Load:
        """Report no slots: a monitor serves no request."""
        return Load()

    async def drain(self, seconds: float) -> None:
        """Hold nothing, so finish at once."""

    def report(self) -> Report:
        """Return the fleet as seen now."""
        records = self._sight.freshened(self._watch.records)
        maps = filter(None, map(self._fleet.map, self._instance.config.scenarios))
        return report(records, {record.id for record in records}, maps)

    def _figures(self) -> Figures:
        """Return what the page shows beside the report."""
        return Figures(
            statuses=self._sight.statuses,
            links=self._readings.links,
            traffic=tuple(self._readings.traffic.values()),
            scenarios=self._instance.config.scenarios,
            steering=self._governor.advice(),
        )

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        actions = self._fleet.handle(event, time.monotonic())
        self._chronicle.tell(actions)
        self._performer.add(actions)

    def _refused(self, action: Assign, outcome: AssignFailed) -> None:
        self._chronicle.refused(action, outcome)
        if outcome.certain and action.role is not Role.STANDBY:
            self._governor.setback(action.scenario, action.revision.number, outcome.message)

    def _leads(self) -> bool:
        """Whether decisions are ours: the lease is, and what the leader before us left has been read."""
        return self._leadership.leading and self._fleet.leading

    def _spare(self) -> int:
        """Count the standbys that are free, with those that a provisioner may still start."""
        living = [one for one in self._sight.living().values() if one.role in SERVING]
        free = [one for one in living if one.role is Role.STANDBY and one.state is State.READY]
        fit = sum(one.health is not Health.FAILED for one in free)
        room = 0 if self._supply is None else self._instance.config.monitor.most_instances - len(living)
        return fit + max(0, room)

    def _lost(self) -> None:
        self._feed(LeaderLost())
        if self._supply is not None:
            self._supply.forget()

    def _gained(self, epoch: Epoch) -> None:
        _ = self._tasks.spawn(self._lead(epoch), name=f"{self._instance.id} takes over")

    async def _lead(self, epoch: Epoch) -> None:
        """Read what the leader before us left, then lead."""
        while self._leadership.epoch == epoch:
            try:
                maps, records = await self._book.maps(), await self._book.records()
            except Unavailable as error:
                log.warning("the maps could not be read", extra={"error": str(error)})
                await asyncio.sleep(LOOK_S)
                continue
            later = max((one.epoch for one in maps), default=(0, 0))
            if later > epoch:  # Redis has forgotten the counter but not the maps
                await self._leadership.outrank(later)
            elif self._leadership.epoch == epoch:
                await self._journal.read()
                self._chronicle.begin(self._instance.id, maps)
                self._feed(LeaderGained(epoch, maps, tuple(records.values())))
                self._governor.resume()
            return

    # ---- loops -------------------------------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            connected = self._instance.bus.connected
            if connected != self._connected:
                self._connected = connected
                self._feed(BusUp() if connected else BusDown())
            due = self._fleet.next_deadline()
            if due is not None and due <= time.monotonic():
                self._feed(Tick())
            await asyncio.sleep(LOOK_S)

    async def _keep_probing(self, heartbeat_s: float) -> None:
        while True:
            await asyncio.sleep(heartbeat_s / 2)
            if self._instance.bus.connected and self._leadership.leading:
                late = self._sight.late(LATE * heartbeat_s)
                await asyncio.gather(*(self._watch.probe(status, heartbeat_s) for status in late))

    async def _keep_watching(self, every_s: float) -> None:
        while True:
            await self._watch.leases(self._sight.living())
            self._sight.forget()
            self._readings.forget()
            await asyncio.sleep(every_s)

    async def _keep_repeating(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            for scenario in self._instance.config.scenarios:
                current = self._fleet.map(scenario)
                if current is not None:
                    await self._performer.publish(current)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._instance.stop(f"{name} failed: {error}", failed=True)
