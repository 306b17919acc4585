"""Performs what the fleet's decider asks for, in its order, and only while we lead. Decides nothing."""

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from prometheus_client import Counter, Gauge, Histogram

from services.monitor.book import Book
from services.monitor.gauges import MapGauges
from services.monitor.leadership import Leadership
from services.monitor.sight import Sight
from services.monitor.supply import Supply
from shared.errors import BatonError, NoCapacity, Unavailable
from shared.failpoints import failpoint
from shared.lifecycle import Instance
from shared.messages import AssignRole, Done, Drain, Rejected, ScenarioMap
from shared.policy.fleet.events import (
    Action,
    Assign,
    AssignAccepted,
    AssignFailed,
    Event,
    HeldOff,
    Provide,
    PublishMap,
    Release,
    Retire,
    SendDrain,
    Substituted,
)

MOST = 10_000
"""Actions waiting. More than that means that nothing is performed any more, which ends the monitor."""

STEPS_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
"""Buckets of the steps of a substitution: a warm standby takes a second, a large model minutes."""

log = logging.getLogger(__name__)


class Performer:
    """The monitor's hands. Maps are written one after another; orders to instances go on beside them."""

    def __init__(
        self,
        instance: Instance,
        book: Book,
        leadership: Leadership,
        feed: Callable[[Event], None],
        sight: Sight,
        *,
        supply: Supply | None,
        assign_s: float,
        refused: Callable[[Assign, AssignFailed], None],
    ) -> None:
        self._instance = instance
        self._book = book
        self._leadership = leadership
        self._feed = feed
        self._sight = sight
        self._supply = supply
        self._assign_s = assign_s
        self._refused = refused  # told of orders that somebody refused, or did not answer
        self._actions: asyncio.Queue[Action] = asyncio.Queue(MOST)
        registry = instance.telemetry.registry
        self._retired = Counter("baton_fleet_lost", "Instances taken for lost", ["cause"], registry=registry)
        self._assigned = Counter(
            "baton_fleet_assigned", "Roles given to standbys and workers", ["role", "answer"], registry=registry
        )
        self._steps = Histogram(
            "baton_substitution_seconds",
            "Steps of a substitution, each from the one before",
            ["step"],
            registry=registry,
            buckets=STEPS_S,
        )
        self._held_off = Counter(
            "baton_fleet_held_off", "Instances that get no place for a while: lost too often", registry=registry
        )
        self._gauges = MapGauges(registry)
        leads = Gauge("baton_monitor_leading", "1 while this monitor leads", registry=registry)
        leads.set_function(lambda: float(leadership.leading))

    def add(self, actions: list[Action]) -> None:
        """Queue actions, to be performed in this order."""
        for action in actions:
            try:
                self._actions.put_nowait(action)
            except asyncio.QueueFull:
                self._instance.stop(f"{MOST} actions wait and none is performed", failed=True)

    async def keep(self) -> None:
        """Perform. For ever."""
        while True:
            action = await self._actions.get()
            if not self._leadership.leading:
                log.warning("not leading, so not done", extra={"action": repr(action)})
                continue
            failpoint("monitor.action")
            log.info("action", extra={"action": repr(action)})
            await self._perform(action)

    async def _perform(self, action: Action) -> None:
        match action:
            case PublishMap(map=scenario_map):
                await self.publish(scenario_map)
            case Retire():
                await self._retire(action)
            case Assign() | SendDrain() | Release():
                self._order(action)
            case Provide() | Substituted() | HeldOff():
                self._note(action)
            case _:
                assert_never(action)

    def _order(self, action: Assign | SendDrain | Release) -> None:
        match action:
            case Assign(instance=instance):
                _ = self._instance.tasks.spawn(self._assign(action), name=f"assign {instance}")
            case SendDrain(instance=instance):
                _ = self._instance.tasks.spawn(self._drain(instance), name=f"drain {instance}")
            case Release(instance=instance):
                _ = self._instance.tasks.spawn(self._release(instance), name=f"release {instance}")

    def _note(self, action: Provide | Substituted | HeldOff) -> None:
        match action:
            case Provide(missing=missing):
                if self._supply is not None:
                    self._supply.want(missing)
            case Substituted(steps=steps):
                for step, seconds in steps:
                    self._steps.labels(step).observe(seconds)
            case HeldOff():
                self._held_off.inc()

    async def publish(self, scenario_map: ScenarioMap) -> None:
        """Write a map to Redis, then announce it. A later leader's map there keeps ours from being announced.

        When Redis does not answer, announce all the same: receivers compare epochs themselves, and the next repetition
        writes it.
        """
        if not self._ours(scenario_map):
            return
        try:
            if not await self._book.write_map(scenario_map):
                log.error("Redis holds a later map", extra={"scenario": scenario_map.scenario})
                return
        except Unavailable as error:
            log.warning("map not written", extra={"scenario": scenario_map.scenario, "error": str(error)})
            if not self._ours(scenario_map):
                return  # the wait has cost us the lead
        self._gauges.show(scenario_map)
        try:
            await self._instance.bus.publish(
                self._instance.subjects.map(scenario_map.scenario), scenario_map, traced=False
            )
        except BatonError as error:
            log.warning("map not announced", extra={"scenario": scenario_map.scenario, "error": str(error)})

    def _ours(self, scenario_map: ScenarioMap) -> bool:
        return self._leadership.leading and scenario_map.epoch == self._leadership.epoch

    async def _assign(self, action: Assign) -> None:
        outcome = await self._ask_to_become(action)
        answer = "done" if isinstance(outcome, AssignAccepted) else "refused" if outcome.certain else "unknown"
        self._assigned.labels(action.role.value, answer).inc()
        if isinstance(outcome, AssignFailed):
            self._refused(action, outcome)
        self._feed(outcome)

    async def _ask_to_become(self, action: Assign) -> AssignAccepted | AssignFailed:
        seconds = self._instance.config.fleet.drain_s
        order = AssignRole(action.role, action.scenario, action.group, action.revision, seconds)
        control = self._instance.subjects.control(action.instance)
        try:
            answer: Done | Rejected = await self._instance.bus.request(
                control, order, Done | Rejected, timeout_s=self._assign_s
            )
        except NoCapacity as error:
            return AssignFailed(action.instance, str(error), certain=True)
        except BatonError as error:  # it may have understood all the same
            return AssignFailed(action.instance, str(error))
        if isinstance(answer, Rejected):
            return AssignFailed(action.instance, answer.message, certain=True)
        return AssignAccepted(action.instance)

    async def _drain(self, instance: str) -> None:
        order = Drain(self._instance.config.fleet.drain_s)
        try:
            _: Done | Rejected = await self._instance.bus.request(
                self._instance.subjects.control(instance), order, Done | Rejected, timeout_s=self._assign_s
            )
        except BatonError as error:  # it may be gone already, or frozen; it is out of the map in any case
            log.warning("drain not confirmed", extra={"instance": instance, "error": str(error)})

    async def _release(self, instance: str) -> None:
        """Let a standby end and give it back. One that did not hear us is ended by the provisioner."""
        await self._drain(instance)
        if self._supply is not None:
            self._supply.release(instance)

    async def _retire(self, action: Retire) -> None:
        self._retired.labels(action.cause.value).inc()
        status = self._sight.statuses.get(action.instance)
        try:
            await self._book.write_failure(action.instance, action.epoch, action.cause.value, status)
        except Unavailable as error:
            log.warning("failure not noted", extra={"instance": action.instance, "error": str(error)})
