"""Closes the loop: a group of the model, steered. Every plan is carried out, every reason kept."""

from dataclasses import dataclass, field

from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering import Reason, Steering, SteeringRules
from tests.unit.policy.steering.model import Group

TICK_S = 1.0


@dataclass
class Loop:
    """One scenario with one group, `main`."""

    group: Group
    rules: SteeringRules = field(default_factory=lambda: SteeringRules("chat"))
    reasons: list[tuple[float, Reason]] = field(default_factory=list)
    ratios: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steering = Steering(self.rules)
        prefills, decodes = (
            sum(one.role.value == role for one in self.group.workers) for role in ("prefill", "decode")
        )
        self.plan = Plan("chat", (GroupPlan("main", prefills, decodes),))
        self.ratios.append((prefills, decodes))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.group.run(TICK_S)
            now = self.group.now
            for message in self.group.messages():
                self.steering.see(message, now)
            decision = self.steering.tick(now, now, self.plan, settled=self.group.settled, spare=0)
            self.reasons += [(now, reason) for reason in decision.happenings]
            if decision.plan is not None:
                self.plan = decision.plan
                (main,) = self.plan.groups
                self.group.reshape(main.prefill, main.decode)
                self.ratios.append((main.prefill, main.decode))

    @property
    def ratio(self) -> tuple[int, int]:
        return self.ratios[-1]
