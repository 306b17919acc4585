"""Steers one scenario: measurements, orders and the clock go in; a plan for the fleet comes out, with the reasons.

Owns what comes first: an upgrade before scaling, scaling before the ratio. One thing is changed at a time: nothing is
begun by what is measured before the fleet has settled what was planned last. Performs nothing, and keeps no plan of its
own: the fleet's plan is given at each tick, so a new leader goes on where the last one stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from shared.messages import ExplainOrder, ScaleOrder, Status, Traffic, UpgradeOrder
from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering import telling
from shared.policy.steering.figures import GroupFigures, ScenarioFigures
from shared.policy.steering.measures import Measures
from shared.policy.steering.orders import sized
from shared.policy.steering.ratio import Ratio, RatioControl, Verdict, least_of
from shared.policy.steering.rules import SteeringRules
from shared.policy.steering.scaling import Scaling, Sought, affordable, numbered, resized
from shared.policy.steering.upgrade import Upgrade

PATIENCE_S: Final = 120.0
"""A fleet that has not settled for so long may miss an instance for good: the load is followed all the same."""

Order = ScaleOrder | UpgradeOrder | ExplainOrder


class Reason(NamedTuple):
    """One thing that was decided, for the journal."""

    kind: str  # ratio, scale, upgrade, explain
    text: str


class Answer(NamedTuple):
    """To an operator. Not ok: the order cannot be carried out, and the text says what to do."""

    text: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. No plan: everything stays as it is."""

    plan: Plan | None = None
    happenings: tuple[Reason, ...] = ()


class Steering:
    """One scenario's controllers. Raises ValueError where the time table or the time zone cannot be read."""

    def __init__(self, rules: SteeringRules) -> None:
        self._rules = rules
        self._measures = Measures(rules.scenario, rules.ratio.window_s)
        self._scaling = Scaling(rules)
        self._upgrade = Upgrade(rules)
        self._ratios: dict[str, RatioControl] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._sought = Sought(0, "")
        self._plan: Plan | None = None
        self._spare = 0
        self._ordered: tuple[Plan, Plan, Reason] | None = None  # the plan it was given for, and what to do
        self._unsettled: float | None = None  # since when
        self._said: dict[str, str] = {}  # by group, or of the number of groups: what was told already

    def see(self, message: Status | Traffic, now: float) -> None:
        """Take in what an instance or a gateway says; what is of another scenario is ignored."""
        self._measures.see(message, now)

    def resume(self, plan: Plan) -> None:
        """Take the lead: go on with what another leader has begun. What was promised is forgotten."""
        self._upgrade.resume(plan)
        self._ratios.clear()
        self._verdicts.clear()
        self._said.clear()
        self._scaling.changed()
        self._plan, self._ordered, self._unsettled = plan, None, None

    # ---- orders

    def order(self, order: Order, now: float, unix: float) -> Answer:
        """Take an operator's order against the plan of the last tick; call `tick` right after it.

        A dry run, and `ExplainOrder`, change nothing: the text says what would be done. Idempotent.
        """
        plan = self._plan
        if plan is None:
            return Answer("the monitor has just taken the lead; ask again in a moment", ok=False)
        match order:
            case ExplainOrder():
                return Answer(self.explain(now))
            case UpgradeOrder():
                upgrade = Upgrade(self._rules) if order.dry_run else self._upgrade
                step = upgrade.start(order, plan, self._spare)
                if step.plan is not None and not order.dry_run:
                    self._ordered = (plan, step.plan, Reason("upgrade", step.text))
                return Answer(f"would do: {step.text}" if order.dry_run and step.plan else step.text, step.ok)
            case ScaleOrder():
                return self._order_scale(order, plan, unix)

    def _order_scale(self, order: ScaleOrder, plan: Plan, unix: float) -> Answer:
        if self._upgrade.running(plan):
            return Answer("an upgrade runs; scale after its end, or order it to go back", ok=False)
        asked = sized(order, plan, self._rules, self._spare)
        if asked.plan is None or order.dry_run:
            return Answer(f"would do: {asked.text}" if asked.plan is not None else asked.text, asked.ok)
        if order.groups:
            self._scaling.order(order.groups, unix)
        after = asked.plan if asked.lacking <= 0 else asked.sizes  # groups come as far as instances do
        if after is not None and after != plan:
            self._ordered = (plan, after, Reason("scale", asked.text))
        return Answer(asked.text)

    # ---- the clock

    def tick(self, now: float, unix: float, plan: Plan, *, settled: bool, spare: int) -> Decision:
        """Decide. `plan` and `settled` are the fleet's.

        `unix` is the time of day in seconds, `now` monotonic. `spare`: standbys that are free, with those that a
        provisioner may still start.
        """
        if self._plan is None:
            self.resume(plan)
        self._know(plan, now, settled=settled)
        self._plan, self._spare = plan, spare
        if self._ordered is not None:
            return self._obey(plan, now)
        if self._upgrade.running(plan):
            self._scaling.changed()
        step = self._upgrade.tick(plan, self._measures.traffic.of, now, settled=settled)
        if step.plan is not None or step.text:
            happenings = (Reason("upgrade", step.text),) if step.text else ()
            return self._decide(step.plan, happenings, now)
        if self._upgrade.running(plan):
            self._hold("an upgrade runs")
            return Decision()
        return self._scale(plan, now, unix, settled=settled) or self._balance(plan, now, settled=settled)

    def _know(self, plan: Plan, now: float, *, settled: bool) -> None:
        self._measures.know(plan)
        before = {group.name: group for group in self._plan.groups} if self._plan is not None else {}
        names = {group.name for group in plan.groups}
        self._ratios = {name: control for name, control in self._ratios.items() if name in names}
        self._verdicts = {name: verdict for name, verdict in self._verdicts.items() if name in names}
        self._said = {about: text for about, text in self._said.items() if about in names or not about}
        for group in plan.groups:
            old, control = before.get(group.name), self._ratios.get(group.name)
            if old is not None and control is not None and old.size != group.size:
                control.stepped(None, now)
        if settled:
            self._unsettled = None
        elif self._unsettled is None:
            self._unsettled = now

    def _obey(self, plan: Plan, now: float) -> Decision:
        ordered, self._ordered = self._ordered, None
        if ordered is None or ordered[0] != plan:
            text = "an order was dropped, because the groups changed in the same moment; give it again"
            return Decision(None, (Reason("scale", text),))
        for control in self._ratios.values():
            control.stepped(None, now)
        return self._decide(ordered[1], (ordered[2],), now)

    def _decide(self, plan: Plan | None, happenings: tuple[Reason, ...], now: float) -> Decision:
        if plan is not None:
            self._plan, self._unsettled = plan, now
        return Decision(plan, happenings)

    # ---- scaling

    def _scale(self, plan: Plan, now: float, unix: float, *, settled: bool) -> Decision | None:
        figures = self.figures(now)
        sought = self._sought = self._scaling.sought(plan, figures, self.totals(now), now, unix)
        patient = self._unsettled is not None and now - self._unsettled >= PATIENCE_S
        if sought.by_load and not settled and not patient:
            return None
        present = len(numbered(plan, self._rules.named))
        groups = affordable(plan, sought.groups, self._rules, self._spare)
        short = ""
        if groups < sought.groups:
            short = (
                f"{sought.groups} groups are wanted, because {sought.text}; instances to spare are enough for {groups}"
            )
            self._sought = replace(sought, text=short)
        told = (Reason("scale", short),) if self._new("", short) else ()
        if groups == present:
            return Decision(None, told) if told else None
        self._scaling.changed()
        text = f"from {present} to {groups} groups: {sought.text}"
        return self._decide(resized(plan, groups, self._rules), (Reason("scale", text), *told), now)

    def _new(self, about: str, text: str) -> bool:
        """Whether this is to be told: once, until it is another text."""
        if self._said.get(about, "") == text:
            return False
        self._said[about] = text
        return bool(text)

    # ---- ratio

    def _hold(self, why: str) -> None:
        """Let nothing that is promised count: members are on their way."""
        for name, control in self._ratios.items():
            control.unsettled()
            self._verdicts[name] = Verdict(f"stays: {why}")

    def _balance(self, plan: Plan, now: float, *, settled: bool) -> Decision:
        if self._rules.ratio.mode == "fixed":
            return Decision()
        if not settled:
            self._hold("members are on their way")
            return Decision()
        for group in plan.groups:
            control = self._ratios.setdefault(group.name, RatioControl(self._rules.ratio))
            self._verdicts[group.name] = self._judge(control, group, plan, now)
        if self._rules.ratio.mode == "explain":
            return Decision(None, self._would())
        due = next(((name, verdict) for name, verdict in self._verdicts.items() if verdict.due), None)
        if due is None or due[1].to is None:
            return Decision()
        return self._step(plan, due[0], due[1].to, now)

    def _judge(self, control: RatioControl, group: GroupPlan, plan: Plan, now: float) -> Verdict:
        others = [one for one in plan.groups if one.name != group.name]
        elsewhere = Ratio(sum(one.prefill for one in others), sum(one.decode for one in others))
        ratio = Ratio(group.prefill, group.decode)
        least = least_of(ratio, elsewhere, self._rules.ratio.least)
        return control.decide(self._measures.group(group.name, now), ratio, least, now)

    def _would(self) -> tuple[Reason, ...]:
        told: list[Reason] = []
        for name, verdict in self._verdicts.items():
            text = f"{name} would get more {verdict.more}s" if verdict.due else ""
            if self._new(name, text):
                told.append(Reason("explain", f"{text}: {verdict.text}"))
        return tuple(told)

    def _step(self, plan: Plan, name: str, ratio: Ratio, now: float) -> Decision:
        group, verdict = plan.group(name), self._verdicts[name]
        if group is None:
            raise AssertionError("a verdict is about a group of the plan")
        self._ratios[name].stepped(verdict.more, now)
        stepped = plan.with_group(replace(group, prefill=ratio.prefill, decode=ratio.decode))
        return self._decide(stepped, (Reason("ratio", f"{name}: {verdict.text}"),), now)

    # ---- what is known

    def explain(self, now: float) -> str:
        """Say in words and numbers what is measured, what would be done, and why."""
        plan = self._plan
        if plan is None:
            return "nothing is known yet"
        lines = [telling.scenario(plan, self.totals(now), self._rules.scale, self._sought.text)]
        if self._upgrade.status:
            lines.append(f"upgrade: {self._upgrade.status}")
        figures = self.figures(now)
        for group in plan.groups:
            verdict = self._verdicts.get(group.name)
            lines += telling.group(group, figures[group.name], verdict.text if verdict is not None else "")
        if self._rules.ratio.mode != "auto":
            lines.append(telling.MODES[self._rules.ratio.mode])
        return "\n".join(lines)

    @property
    def upgrading(self) -> str:
        """What a running upgrade does now; empty: none runs."""
        return self._upgrade.status

    @property
    def groups_sought(self) -> int:
        """How many numbered groups there should be, as decided last."""
        return self._sought.groups

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it does what it does, or why it does nothing: of the number of groups, then of each group's ratio."""
        of_groups = (f"{name}: {verdict.text}" for name, verdict in self._verdicts.items())
        return tuple(text for text in (self._upgrade.status, self._sought.text, *of_groups) if text)

    def figures(self, now: float) -> Mapping[str, GroupFigures]:
        """Measure each group of the plan, for the dashboard and the metrics."""
        groups = self._plan.groups if self._plan is not None else ()
        return {group.name: self._measures.group(group.name, now) for group in groups}

    def totals(self, now: float) -> ScenarioFigures:
        """Measure the scenario."""
        return self._measures.totals(self.figures(now).values(), now)
