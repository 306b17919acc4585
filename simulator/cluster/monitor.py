"""The monitor in simulated time: performs what `Fleet` and `Steering` decide, and tells them what comes of it.

It begins as a leader that finds its groups formed. Looks at leases and ports as the product's does: who dies is told
when his lease has run out and the watch has looked, or when a probe of one that is late is refused; who is silent the
decider finds itself. Of one monitor only, and Redis and NATS never fail: their faults are the fault tests' matter.
Upgrades are not simulated: every instance runs revision 0. Decides nothing.
"""

from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Final, assert_never

from shared.messages import Links, ScenarioMap, Status
from shared.policy.fleet import Fleet
from shared.policy.fleet.events import (
    Action,
    Assign,
    ConnectionRefused,
    Event,
    FleetRules,
    HeldOff,
    LeaderGained,
    LeaseLost,
    LinksSeen,
    Planned,
    Provide,
    PublishMap,
    Release,
    Retire,
    SendDrain,
    Substituted,
)
from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering.rules import SteeringRules
from shared.policy.steering.steering import Reason, Steering
from shared.policy.world import StatusSeen, Tick
from simulator.cluster.becoming import Becoming
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import ScenarioSpec
from simulator.cluster.traffic import TrafficBook
from simulator.cluster.verifying import Verifying
from simulator.cluster.worker import Worker

TICK_S: Final = 1.0
LATE: Final = 1.5
"""Heartbeats without a status after which an instance's health port is tried."""
RENEWALS: Final = 3.0
"""Of a lease within its time; the watch looks as often."""


@dataclass(frozen=True, slots=True)
class MonitorSpec:
    """What the monitor goes by. Heartbeats are the fleet's; whether there is a provisioner is said by `provide_s`."""

    rules: FleetRules = field(default_factory=lambda: FleetRules(settle_s=30.0))
    steering: tuple[SteeringRules, ...] = ()  # of the scenarios that have any
    standbys: int = 0  # that are there at the begin
    lease_ttl_s: float = 3.0
    host_answers: bool = True  # a process dies, and its host refuses connections; else the host is gone, too
    start_s: float = 1.0  # from an order to the first word in the new role
    connect_s: float = 0.1  # from the map to a verified pair
    provide_s: float | None = None  # for a provisioner to bring an instance; None: there is none
    most: int = 0  # instances that it brings to, at most
    unix: float = 0.0  # time of day at the begin
    days_faster: float = 1.0  # the time of day passes so many times faster


class Monitor:
    """One, which leads. Make it before the simulation runs."""

    def __init__(self, simulation: Simulation, spec: MonitorSpec | None = None) -> None:
        self.spec = spec = spec or MonitorSpec()
        self._simulation, self._clock = simulation, simulation.clock
        fleet = simulation.spec
        rules = replace(
            spec.rules, heartbeat_s=fleet.heartbeat_s, misses=fleet.misses, provide=spec.provide_s is not None
        )
        self.fleet = Fleet([_plan(one) for one in fleet.scenarios], rules)
        self.steering = {one.scenario: Steering(one) for one in spec.steering}
        self.told: list[tuple[float, str, Reason]] = []  # when, of which scenario
        self.substituted: list[tuple[float, Substituted]] = []
        self.retired: list[tuple[float, Retire]] = []
        self.hands = Becoming(
            simulation,
            start_s=spec.start_s,
            assign_s=rules.assign_s,
            drain_s=rules.drain_s,
            beat_s=min(fleet.heartbeat_s, rules.starting_silence_s / 2),
        )
        self._verifying = Verifying(simulation, spec.connect_s, self._linked)
        self._heard: dict[str, float] = {}  # when each spoke last
        self._stands: dict[str, float] = {}  # since when
        self._coming = 0  # instances that the provisioner brings, and that were not heard yet
        self._brought: set[str] = set()  # of them, those that are there
        self._tick_at = inf
        self._epoch = simulation.next_epoch()
        simulation.bus.listen(self._hear)
        simulation.fallen.append(self._fell)
        simulation.thawed.append(self._thawed)
        for _ in range(spec.standbys):
            self.hands.bring()
        maps = tuple(simulation.map(one.name) for one in fleet.scenarios)
        self._feed(LeaderGained(self._epoch, maps))
        if self.steering:
            self._traffic = TrafficBook(simulation)
            self._clock.after(TICK_S, self._steer)

    def kill(self, name: str) -> bool:
        """Let an instance die, whatever it is just now; False: it is down already."""
        return self.hands.kill(name)

    def repair(self, name: str) -> None:
        """Let one that died be there again, as a standby."""
        self.hands.bring(name)

    # ---- what is heard, and seen

    def _hear(self, message: Status | ScenarioMap) -> None:
        if isinstance(message, ScenarioMap):
            return  # our own
        self._heard[message.instance] = self._clock.now
        if message.instance in self._brought:
            self._brought.discard(message.instance)
            self._coming -= 1
        self._feed(StatusSeen(message))
        steering = self.steering.get(message.scenario)
        if steering is not None:
            steering.see(message, self._clock.now)

    def _linked(self, links: Links) -> None:
        self._simulation.bus.say(self._feed, LinksSeen(links))

    def _fell(self, worker: Worker) -> None:
        """Set the watch's looks at one that has died or stands still: its lease was renewed up to now."""
        now, ttl_s, beat_s = self._clock.now, self.spec.lease_ttl_s, self._simulation.spec.heartbeat_s
        look_s = ttl_s / RENEWALS
        lapsed = now - now % look_s + ttl_s
        self._clock.at(ceil(lapsed / look_s + 1e-9) * look_s, self._look, worker)
        self._stands[worker.name] = now
        if not worker.up and self.spec.host_answers:
            late = self._heard.get(worker.name, now) + LATE * beat_s
            self._clock.at(ceil(late / (beat_s / 2) + 1e-9) * beat_s / 2, self._probe, worker)

    def _look(self, worker: Worker) -> None:
        if not worker.up or worker.frozen:
            self._feed(LeaseLost(worker.name, worker.epoch))

    def _probe(self, worker: Worker) -> None:
        if self._simulation.workers[worker.name] is worker:
            self._feed(ConnectionRefused(worker.name, worker.epoch))

    def _thawed(self, worker: Worker) -> None:
        """Give one that goes on after its lease ran out, or after it was taken for lost, another epoch."""
        lapsed = self._clock.now - self._stands[worker.name] >= self.spec.lease_ttl_s
        scenario_map = self._simulation.map(worker.scenario.name)
        group = next((one for one in scenario_map.groups if one.name == worker.group), None)
        members = [] if group is None else [*group.prefill, *group.decode]
        if not worker.draining and (lapsed or not any(one.instance == worker.name for one in members)):
            self.hands.again(worker)

    # ---- the fleet's decider

    def _feed(self, event: Event) -> None:
        for action in self.fleet.handle(event, self._clock.now):
            self._perform(action)
        due = self.fleet.next_deadline()
        if due is not None and due < self._tick_at:
            self._tick_at = due
            self._clock.at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        if due == self._tick_at:
            self._tick_at = inf
            self._feed(Tick())

    def _perform(self, action: Action) -> None:
        match action:
            case PublishMap(map=scenario_map):
                self._simulation.publish(scenario_map)
                self._verifying.see(scenario_map)
            case Assign():
                self._simulation.bus.say(self.hands.assign, action, self._feed)
            case SendDrain(instance=instance) | Release(instance=instance):
                self._simulation.bus.say(self.hands.drain, instance)
            case Provide(missing=missing):
                self._provide(missing)
            case Retire():
                self.retired.append((self._clock.now, action))
            case Substituted():
                self.substituted.append((self._clock.now, action))
            case HeldOff():
                pass
            case _:
                assert_never(action)

    def _provide(self, missing: int) -> None:
        if self.spec.provide_s is None:
            return
        room = self.spec.most - self.hands.instances - self._coming + len(self._brought)
        for _ in range(max(0, min(missing - self._coming, room))):
            self._coming += 1
            self._clock.after(self.spec.provide_s, self._provided)

    def _provided(self) -> None:
        self._brought.add(self.hands.bring())

    # ---- steering

    def _steer(self) -> None:
        """Tell the traffic of the last second, and ask the controllers."""
        self._clock.after(TICK_S, self._steer)
        now = self._clock.now
        for message in self._traffic.messages(self._epoch):
            if message.scenario in self.steering:
                self.steering[message.scenario].see(message, now)
        for name, steering in self.steering.items():
            plan = self.fleet.plan(name) or Plan(name, ())
            unix = self.spec.unix + now * self.spec.days_faster
            decision = steering.tick(now, unix, plan, settled=self.fleet.settled(name), spare=self._spare())
            self.told += [(now, name, reason) for reason in decision.happenings]
            if decision.plan is not None:
                cause = "; ".join(reason.text for reason in decision.happenings) or "planned"
                self._feed(Planned(decision.plan, cause))

    def _spare(self) -> int:
        """Count the standbys that are free, with those that the provisioner may still bring."""
        room = 0 if self.spec.provide_s is None else self.spec.most - self.hands.instances
        return self.hands.free + max(0, room)


def _plan(scenario: ScenarioSpec) -> Plan:
    groups = (GroupPlan(one.name, one.prefill, one.decode, strategy=one.strategy) for one in scenario.groups)
    return Plan(scenario.name, tuple(groups))
