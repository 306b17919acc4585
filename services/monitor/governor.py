"""Runs the controllers of shared/policy/steering: feeds them, asks them about once a second, and hands their plans on.

Owns one Steering per scenario and the answers to operators. Decides nothing: plans go to the fleet's decider as events.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from services.monitor.advice import advice
from services.monitor.dashboard.figures import Advice
from services.monitor.gauges import SteeringGauges
from services.monitor.journal import Journal
from services.monitor.orders import Order
from services.monitor.plans import steering_of
from services.monitor.standing import standing
from shared.config import Config, ScenarioSettings
from shared.errors import BadRequest, UnknownScenario
from shared.lifecycle import Instance
from shared.messages import ExplainOrder, ScaleOrder, State, Status, Told, Traffic, UpgradeOrder
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import Event, Planned
from shared.policy.plan import Plan
from shared.policy.steering.steering import Reason, Steering
from shared.reloading import Apply

TICK_S: Final = 1.0
MOST_SETBACKS: Final = 3
"""Instances that may refuse an upgrade's revision, or die of it, before it is taken back."""
DECISIONS: Final = frozenset({"ratio", "scale", "upgrade", "explain", "refused"})
"""Kinds of happenings that an explanation ends with."""
MOST_LATELY: Final = 8

log = logging.getLogger(__name__)


class Governor:
    """The controllers of all scenarios. `spare` counts the standbys that may be planned with."""

    def __init__(
        self,
        instance: Instance,
        fleet: Fleet,
        journal: Journal,
        feed: Callable[[Event], None],
        spare: Callable[[], int],
    ) -> None:
        self._instance = instance
        self._fleet = fleet
        self._journal = journal
        self._feed = feed
        self._spare = spare
        self._settings: dict[str, ScenarioSettings] = dict(instance.config.scenarios)
        self._steering = {name: steering_of(name, settings) for name, settings in self._settings.items()}
        self._setbacks: dict[str, tuple[int, int]] = {}  # the revision, and how many
        self._gauges = SteeringGauges(instance.telemetry.registry)
        instance.reloading.add(self._prepare, *(f"scenario.{name}" for name in self._settings))

    def see(self, message: Status | Traffic) -> None:
        """Have a scenario's controllers take a measurement in; also where another monitor leads."""
        steering = self._steering.get(message.scenario)
        if steering is None:
            return
        steering.see(message, time.monotonic())
        if isinstance(message, Status) and message.state is State.FAILED:
            self.setback(message.scenario, message.revision, f"{message.instance} has failed; its log says why")

    def setback(self, scenario: str, revision: int, why: str) -> None:
        """Count an instance that could not run a revision. Several in a row, and an upgrade to it goes back at once."""
        plan = self._plan(scenario)
        target = plan.target
        if not self._fleet.leading or revision != target or all(one.revision == target for one in plan.groups):
            return
        number, count = self._setbacks.get(scenario, (target, 0))
        self._setbacks[scenario] = (target, count + 1 if number == target else 1)
        if self._setbacks[scenario][1] == MOST_SETBACKS:
            text = f"{MOST_SETBACKS} instances could not run revision {target}, so it is taken back: {why}"
            self._journal.note(scenario, "upgrade", text)
            try:
                _ = self.order(UpgradeOrder(scenario, back=True))
            except BadRequest as error:
                self._journal.note(scenario, "upgrade", f"it cannot be taken back: {error}")

    def resume(self) -> None:
        """Go on with what the leader before us has begun; its plans are the fleet's by now."""
        for name, steering in self._steering.items():
            steering.resume(self._plan(name))

    async def keep(self, leading: Callable[[], bool]) -> None:
        """Ask the controllers while we lead. For ever."""
        while True:
            for name in self._steering if leading() else ():
                try:
                    self.tick(name)
                except Exception:  # the other scenarios, and the fleet, must go on
                    self._gauges.failed(name)
                    log.exception("the controllers of a scenario failed", extra={"scenario": name})
            await asyncio.sleep(TICK_S)

    def tick(self, scenario: str) -> None:
        """Ask the controllers of a scenario, and have done what they decide."""
        steering, now = self._steering[scenario], time.monotonic()
        decision = steering.tick(
            now, time.time(), self._plan(scenario), settled=self._fleet.settled(scenario), spare=self._spare()
        )
        self._note(scenario, decision.happenings)
        if decision.plan is not None:
            cause = "; ".join(reason.text for reason in decision.happenings) or "planned"
            self._feed(Planned(decision.plan, cause))
        self._gauges.show(scenario, steering.figures(now), steering.totals(now))

    def order(self, order: Order) -> Told:
        """Carry an operator's order out. Raises UnknownScenario, or BadRequest where it cannot be carried out."""
        name = order.scenario
        steering = self._steering.get(name)
        if steering is None:
            known = ", ".join(self._steering) or "none"
            raise UnknownScenario(f"there is no scenario {name}; there are: {known}")
        self.tick(name)  # it answers by the plan of its last tick
        answer = steering.order(order, time.monotonic(), time.time())
        if not answer.ok:
            raise BadRequest(answer.text)
        if isinstance(order, ExplainOrder):
            return self._told(name, "\n".join([self._standing(name), answer.text, *self._lately(name)]))
        if not order.dry_run:
            self.tick(name)
        return self._told(name, answer.text)

    def advice(self) -> Mapping[str, Advice]:
        """Say what is measured and wanted, for the page."""
        now = time.monotonic()
        return {
            name: advice(
                self._settings[name].ratio.mode,
                self._plan(name),
                steering.figures(now).values(),
                steering.totals(now),
                upgrade=steering.upgrading,
                reasons=steering.reasons,
            )
            for name, steering in self._steering.items()
        }

    def _plan(self, scenario: str) -> Plan:
        return self._fleet.plan(scenario) or Plan(scenario, ())

    def _settled(self, scenario: str) -> bool:
        return self._fleet.settled(scenario) and not self._steering[scenario].upgrading

    def _standing(self, scenario: str) -> str:
        upgrading = self._steering[scenario].upgrading
        return standing(scenario, self._fleet.map(scenario), settled=self._settled(scenario), upgrading=upgrading)

    def _lately(self, scenario: str) -> list[str]:
        """List what the controllers did last, the newest last."""
        found = [entry.happening for entry in self._journal.since()]
        told = [one for one in found if one.scenario == scenario and one.kind in DECISIONS]
        return ["lately:", *(f"- {one.kind}: {one.text}" for one in told[-MOST_LATELY:])] if told else []

    def _told(self, scenario: str, text: str) -> Told:
        return Told(self._instance.id, text, self._settled(scenario), self._plan(scenario).target)

    def _note(self, scenario: str, reasons: tuple[Reason, ...]) -> None:
        for reason in reasons:
            self._journal.note(scenario, reason.kind, reason.text)
            self._gauges.decided(scenario, reason.kind)

    # ---- another configuration

    async def _prepare(self, config: Config) -> Apply:
        """Build the controllers of scenarios that changed; what they have measured is measured anew."""
        changed = {
            name: config.scenarios[name]
            for name, settings in self._settings.items()
            if name in config.scenarios and config.scenarios[name] != settings
        }
        made = {name: steering_of(name, settings) for name, settings in changed.items()}
        return lambda: self._take(changed, made)

    def _take(self, changed: Mapping[str, ScenarioSettings], made: Mapping[str, Steering]) -> None:
        for name, settings in changed.items():
            before, self._settings[name], self._steering[name] = self._settings[name], settings, made[name]
            made[name].resume(self._plan(name))
            sizes = (settings.prefill, settings.decode, settings.groups)
            if self._fleet.leading and sizes != (before.prefill, before.decode, before.groups):
                self._resize(name, ScaleOrder(name, *sizes))

    def _resize(self, scenario: str, order: ScaleOrder) -> None:
        """Have the new sizes of the configuration, as if they were ordered."""
        try:
            told = self.order(order)
        except BadRequest as error:
            self._journal.note(scenario, "scale", f"the configuration's new sizes are not taken: {error}")
        else:
            self._journal.note(scenario, "scale", f"the configuration has other sizes: {told.text}")
