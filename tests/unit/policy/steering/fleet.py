"""A stand-in for the fleet around `Steering`: it has the plan, and settles some ticks after each change."""

from dataclasses import dataclass, field

from shared.messages import GroupTraffic, Revision, Traffic, UpgradeOrder
from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering import Answer, Decision, Reason, Steering, SteeringRules
from shared.policy.steering.steering import Order

UNIX = 1_800_000_000.0


@dataclass
class Fleet:
    """One scenario, steered, with a clock of one second per tick."""

    plan: Plan
    rules: SteeringRules = field(default_factory=lambda: SteeringRules("chat"))
    spare: int = 0
    settles_in: int = 2  # ticks; negative: never
    now: float = 0.0
    failing: dict[int, float] = field(default_factory=dict)  # share of the requests that fail, by revision
    per_tick: int = 40  # requests that end in the scenario
    plans: list[Plan] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    _unsettled: int = 0
    _counts: dict[str, list[float]] = field(default_factory=dict)
    _number: int = 0

    def __post_init__(self) -> None:
        self.steering = Steering(self.rules)
        self.plans.append(self.plan)
        self.tick()

    def tick(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.now += 1.0
            if self._unsettled > 0:
                self._unsettled -= 1
            self._serve()
            self._apply(self._decide())

    def _decide(self) -> Decision:
        return self.steering.tick(self.now, UNIX + self.now, self.plan, settled=not self._unsettled, spare=self.spare)

    def _apply(self, decision: Decision) -> None:
        self.reasons += decision.happenings
        if decision.plan is not None:
            self.spare -= decision.plan.size - self.plan.size
            self.plan = decision.plan
            self.plans.append(decision.plan)
            self._unsettled = self.settles_in

    def _serve(self) -> None:
        if not self.per_tick:
            return
        canaries = [group for group in self.plan.groups if group.canary]
        ordinary = [group for group in self.plan.groups if not group.canary]
        for group in self.plan.groups:
            share = group.canary / 100 if group.canary else (1 - sum(one.canary for one in canaries) / 100)
            count = self.per_tick * (share if group.canary else share / len(ordinary))
            bad = count * self.failing.get(group.revision, 0.0)
            counts = self._counts.setdefault(group.name, [0.0, 0.0])
            counts[0] += count - bad
            counts[1] += bad
        self._number += 1
        groups = [GroupTraffic(name, finished=int(good), failed=int(bad)) for name, (good, bad) in self._counts.items()]
        self.steering.see(Traffic("gw", (1, 1), "chat", self._number, groups=groups), self.now)

    def order(self, order: Order) -> Answer:
        answer = self.steering.order(order, self.now, UNIX + self.now)
        self._apply(self._decide())
        return answer

    def upgrade(self, **changes: object) -> Answer:
        return self.order(UpgradeOrder("chat", **{"model": "new", **changes}))  # type: ignore[arg-type]

    def new_leader(self) -> None:
        """Lose everything but the plan, as a map holds it."""
        self.steering = Steering(self.rules)

    def shapes(self) -> list[str]:
        return [shape(plan) for plan in self.plans]


def shape(plan: Plan) -> str:
    """Write the groups as text: name prefill:decode, and a canary's share."""
    parts = (f"{g.name} {g.prefill}:{g.decode}{f' {g.canary}%' if g.canary else ''}" for g in plan.groups)
    return ", ".join(parts)


def plan_of(*groups: tuple[str, int, int]) -> Plan:
    return Plan("chat", tuple(GroupPlan(*group) for group in groups), (Revision(0),))
