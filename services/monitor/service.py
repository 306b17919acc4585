"""Feeds the decider of shared/policy/fleet.py with what it sees, and performs what the decider asks for.

Owns the order of the actions and the repeating of maps, which heals what NATS or Redis lost. Decides nothing.
"""

import asyncio
import logging
import time
from contextlib import AsyncExitStack

from services.monitor.book import Book
from services.monitor.leadership import Leadership
from services.monitor.performer import Performer
from services.monitor.sight import Sight
from services.monitor.view import View
from services.monitor.watch import Watch
from shared.bus import Delivery
from shared.config import Config
from shared.errors import MalformedMessage, Unavailable
from shared.lifecycle import Instance, Load
from shared.messages import VERSION, Epoch, Role, ScenarioMap, Status, decode
from shared.policy.fleet import Fleet
from shared.policy.fleet_events import Event, FleetRules, LeaderGained, LeaderLost, Place
from shared.policy.world import BusDown, BusUp, MapSeen, PulseSeen, StatusSeen, Tick
from shared.report import Report, report
from shared.tasks import Tasks

LOOK_S = 0.1
"""How often the clock and the connection are looked at."""
SETTLE_S = 30.0
"""For those who are to work here to show up, before a standby is sent into a place where nobody was ever seen. A cold
container took 17 s to its first word; a place that somebody was seen to leave is filled at once."""
LATE = 1.5
"""Heartbeats without a status after which an instance's health port is tried."""

log = logging.getLogger(__name__)


def wanted(config: Config) -> dict[Place, int]:
    """Say how many workers each scenario is to have, in its one group."""
    group = FleetRules().default_group
    return {
        Place(name, group, role): count
        for name, settings in config.scenarios.items()
        for role, count in ((Role.PREFILL, settings.prefill), (Role.DECODE, settings.decode))
    }


class Monitor:
    """One monitor; of several, one leads and the others only observe."""

    role = Role.MONITOR

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        """Open the dashboard, then listen, then seek leadership."""
        fleet = instance.config.fleet
        self._instance = instance
        self._tasks = Tasks(instance.id, on_failure=self._task_failed)
        rules = FleetRules(heartbeat_s=fleet.heartbeat_s, misses=fleet.heartbeat_misses, settle_s=SETTLE_S)
        self._fleet = Fleet(wanted(instance.config), rules)
        self._book = Book(instance.redis)
        self._sight = Sight()
        self._leadership = Leadership(instance, gained=self._gained, lost=lambda: self._feed(LeaderLost()))
        self._watch = Watch(self._book, self._leadership, instance.host, self._feed)
        self._performer = Performer(
            instance, self._book, self._leadership, self._feed, self._sight, assign_s=rules.assign_s
        )
        self._connected = True
        view = View(instance.id, instance.telemetry, self.report, lambda: self._leadership.leading)
        stack.push_async_callback(view.close)
        await view.open(instance.config.monitor.host, instance.config.monitor.port)
        stack.push_async_callback(self._leadership.step_down)
        stack.push_async_callback(self._tasks.close)
        for subject, handler in (
            (instance.subjects.status("*"), self._on_status),  # `*` covers `_fleet` too
            (instance.subjects.map("*"), self._on_map),  # of another monitor, while it leads
            (instance.subjects.pulse(), self._on_pulse),
        ):
            subscription = await instance.bus.subscribe(subject, handler)
            stack.push_async_callback(subscription.stop)
        for name, loop in (
            ("leadership", self._leadership.keep()),
            ("actions", self._performer.keep()),
            ("clock", self._keep_looking()),
            ("probes", self._keep_probing(fleet.heartbeat_s)),
            ("watch", self._keep_watching(fleet.lease_ttl_s / 3)),
            ("maps", self._keep_repeating(fleet.lease_ttl_s)),
        ):
            _ = self._tasks.spawn(loop, name=f"{instance.id} {name}")

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

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        self._performer.add(self._fleet.handle(event, time.monotonic()))

    def _on_status(self, delivery: Delivery) -> None:
        try:
            status: Status = decode(delivery.data, Status, "status")
        except MalformedMessage as error:
            log.warning("status refused", extra={"subject": delivery.subject, "error": str(error)})
            return
        if delivery.subject.rpartition(".")[2] != status.instance or not self._sight.see(status):
            return
        if status.version == VERSION:
            self._feed(StatusSeen(status))
        elif status.number == 1:
            text = "an instance speaks another version of the protocol and gets no place; upgrade it, or this monitor"
            log.error(text, extra={"instance": status.instance, "its": status.version, "ours": VERSION})

    def _on_map(self, delivery: Delivery) -> None:
        try:
            scenario_map: ScenarioMap = decode(delivery.data, ScenarioMap, "map")
        except MalformedMessage as error:
            log.warning("map refused", extra={"subject": delivery.subject, "error": str(error)})
            return
        self._feed(MapSeen(scenario_map))

    def _on_pulse(self, _delivery: Delivery) -> None:
        self._feed(PulseSeen())

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
                self._feed(LeaderGained(epoch, maps, tuple(records.values())))
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
