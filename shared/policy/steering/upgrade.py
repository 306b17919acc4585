"""Upgrades a scenario, group after group at an unchanged ratio, behind a canary; goes back when that does worse.

P/D-Serve 1.7. All groups are to have the plan's `target`; those of another revision go over to it, one step at a time,
each when the fleet has settled the last. So all that an upgrade is lies in the plan, and a new leader goes on with it;
a trial under way begins anew. Going back is the same with the old revision as the target.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from shared.messages import Revision, UpgradeOrder
from shared.policy.plan import GroupPlan, Plan
from shared.policy.steering import revisions
from shared.policy.steering.canary import judge
from shared.policy.steering.moves import counterpart, moved, paired, splits
from shared.policy.steering.names import group_name, parts
from shared.policy.steering.rules import SteeringRules
from shared.policy.steering.traffic import Sums

TRIAL_S = 30.0
"""Of a trial whose order a new leader has not heard."""

SumsOf = Callable[[str], Sums]


@dataclass(frozen=True, slots=True)
class Step:
    """What an upgrade does now. No plan: it waits. No text: there is nothing to tell."""

    plan: Plan | None = None
    text: str = ""
    ok: bool = True


@dataclass(slots=True)
class _Trial:
    since: float
    canary: Sums  # as they were then
    others: Sums


class Upgrade:
    """One scenario's. What it remembers beside the plan are times, and where the sums of a trial began."""

    def __init__(self, rules: SteeringRules) -> None:
        self._rules = rules
        self._trial_s = TRIAL_S
        self._trial: _Trial | None = None
        self._unsettled: float | None = None  # since when
        self._ran = False
        self._stuck = False
        self.status = ""  # what a running one does now

    def resume(self, plan: Plan) -> None:
        """Go on with what another leader has begun: all of it is in the plan."""
        self._trial_s, self._trial, self._unsettled, self._stuck = TRIAL_S, None, None, False
        self._ran = self.running(plan)

    def running(self, plan: Plan) -> bool:
        """Whether groups are on their way to the target."""
        return any(group.revision != plan.target or self._canary(group) for group in plan.groups)

    def going_back(self, plan: Plan) -> bool:
        """Whether the revision that is left came after the target."""
        aim = revisions.place(plan, plan.target)
        return any(revisions.place(plan, group.revision) > aim for group in plan.groups)

    # ---- orders

    def start(self, order: UpgradeOrder, plan: Plan, spare: int) -> Step:
        """Begin what is ordered, or say why not."""
        if order.back:
            return self._start_back(plan, spare)
        if not order.model and not order.options:
            return Step(text="nothing to upgrade to: name a model, or engine options", ok=False)
        old, new = revisions.target(plan), revisions.after(plan, order.model, order.options)
        if (new.model, new.options) == (old.model, old.options):
            word = "is under way already" if self.running(plan) else "runs already"
            return Step(text=f"revision {old.number} {word}")
        if self.running(plan):
            text = f"an upgrade to revision {plan.target} runs; wait for its end, or order it to go back"
            return Step(text=text, ok=False)
        canary = order.canary if order.trial_s > 0.0 else 0
        step = self._begin(replace(plan, revisions=revisions.with_next(plan, new), target=new.number), canary, spare)
        if step.plan is not None and not order.dry_run:
            self._trial_s = order.trial_s
        return step

    def _start_back(self, plan: Plan, spare: int) -> Step:
        if self.running(plan):
            if self.going_back(plan):
                return Step(text=f"it goes back to revision {plan.target} already")
            return self._go_back(plan, "it was ordered")
        old = revisions.before(plan)
        if old is None:
            return Step(text=f"there is no revision before {plan.target} to go back to", ok=False)
        return self._begin(replace(plan, revisions=revisions.listed(plan), target=old.number), 0, spare)

    def _begin(self, plan: Plan, canary: int, spare: int) -> Step:
        """Take the first step to the target: a canary beside the groups, or a pair or a group out of them."""
        if not plan.groups:
            return Step(plan, f"revision {plan.target} runs from the next group on")
        largest = max(plan.groups, key=lambda group: group.size)
        alone = len(plan.groups) == 1 and not splits(largest)
        if spare > 1 and (canary or alone):
            return self._beside(plan, largest, canary, spare if alone else 2)
        if alone:
            text = (
                f"{largest.name} is {largest.prefill}:{largest.decode} and the only group, so it cannot be upgraded "
                f"without loss: it needs two more instances, and {spare} can be had; start standbys, or configure a "
                "provisioner"
            )
            return Step(text=text, ok=False)
        if splits(largest):
            begun = paired(plan, largest, self._rules.named, canary) if canary else None
            begun = begun or moved(plan, largest, self._rules.named)
        else:
            begun = moved(plan, min(reversed(plan.groups), key=lambda group: group.size), self._rules.named, canary)
        name = next(one.name for one in begun.groups if one.revision == plan.target)
        return Step(begun, self._said(begun, name, canary))

    def _beside(self, plan: Plan, like: GroupPlan, canary: int, spare: int) -> Step:
        """Add a group of spare instances; it serves on while the others go over, and leaves at the end."""
        prefill, decode = (like.prefill, like.decode) if spare >= like.size else (1, 1)
        name = group_name(parts(like.name, self._rules.named).base, plan.target, canary=True)
        begun = plan.with_group(GroupPlan(name, prefill, decode, plan.target, like.strategy, canary))
        return Step(begun, self._said(begun, name, canary))

    def _said(self, plan: Plan, name: str, canary: int) -> str:
        model = revisions.target(plan).model
        what = f"revision {plan.target}{f' ({model})' if model else ''}"
        share = f", with {canary} % of the requests once it is open" if canary else ""
        return f"{what} begins with {name}{share}"

    # ---- step after step

    def tick(self, plan: Plan, sums: SumsOf, now: float, *, settled: bool) -> Step:
        """Take the next step when it is time. Call it at each tick."""
        if not self.running(plan):
            return self._done(plan, settled=settled)
        self._ran = True
        canary = next((group for group in plan.groups if group.canary and group.revision == plan.target), None)
        if canary is not None and (settled or self._trial is not None):
            step = self._try(plan, canary, sums, now)
            if step is not None:
                return step
        if not settled:
            return self._wait(plan, now)
        self._unsettled, self._stuck = None, False
        return Step() if canary is not None else self._roll(plan)

    def _done(self, plan: Plan, *, settled: bool) -> Step:
        self._trial = self._unsettled = None
        if not settled or not self._ran:
            self.status = f"the last members come to revision {plan.target}" if self._ran else ""
            return Step()
        self._ran, self.status = False, ""
        return Step(text=f"all groups have revision {plan.target}")

    def _wait(self, plan: Plan, now: float) -> Step:
        if self._unsettled is None:
            self._unsettled = now
        waited, limit = now - self._unsettled, self._rules.upgrade.settle_s
        self.status = f"members come to revision {plan.target}, since {waited:.0f} of {limit:.0f} s"
        if waited < limit or self._stuck:
            return Step()
        text = f"the instances did not come up within {limit:.0f} s"
        if self.going_back(plan) or all(group.revision == plan.target for group in plan.groups):
            self._stuck = True
            return Step(text=f"the way to revision {plan.target} is stuck: {text}")
        return self._go_back(plan, text)

    def _try(self, plan: Plan, canary: GroupPlan, sums: SumsOf, now: float) -> Step | None:
        """Watch the canary; None: nothing is to be done yet."""
        mine, others = sums(canary.name), Sums()
        for group in plan.groups:
            if group.name != canary.name:
                others = others.both(sums(group.name))
        if self._trial is None:
            self._trial = _Trial(now, mine, others)
            self.status = f"{canary.name} is tried with {canary.canary} % of the requests"
            return Step(text=f"{self.status} for {self._trial_s:.0f} s")
        lasted = now - self._trial.since
        over = lasted >= self._trial_s
        found = judge(mine.minus(self._trial.canary), others.minus(self._trial.others), self._rules.upgrade, over=over)
        self.status = f"{canary.name} is tried, since {lasted:.0f} of {self._trial_s:.0f} s: {found.text}"
        if found.worse:
            return self._go_back(plan, f"{canary.name} does worse: {found.text}")
        if not over:
            return None
        self._trial = None
        word = "was good" if found.requests else "says nothing, the upgrade goes on"
        return Step(plan.with_group(replace(canary, canary=0)), f"the trial of {canary.name} {word}: {found.text}")

    def _roll(self, plan: Plan) -> Step:
        """Move the next pair: of the group that has begun, else of the next one."""
        named = self._rules.named
        olds = [group for group in plan.groups if group.revision != plan.target and not self._canary(group)]
        if not olds:
            kept = tuple(group for group in plan.groups if not self._canary(group))
            self.status = f"the group beside the others leaves, all others have revision {plan.target}"
            return Step(replace(plan, groups=kept), self.status)
        old = next((group for group in olds if plan.group(counterpart(plan, group, named)) is not None), olds[0])
        after = moved(plan, old, named)
        name = counterpart(plan, old, named)
        new, rest = after.group(name), after.group(old.name)
        grown = f"{new.prefill}:{new.decode}" if new is not None else "gone"
        left = f"{rest.prefill}:{rest.decode} left in {old.name}" if rest is not None else f"{old.name} closes"
        self.status = f"{name} grows to {grown}, {left}"
        return Step(after, self.status)

    def _go_back(self, plan: Plan, why: str) -> Step:
        """Make the revision of the groups that were not reached the target again, and take the first step at once."""
        self._trial = self._unsettled = None
        left = plan.target
        old = self._left_from(plan)
        back = replace(plan, revisions=revisions.listed(plan), target=old.number)
        if any(group.revision == old.number for group in plan.groups):
            back = replace(back, groups=tuple(one for one in back.groups if not self._canary(one)))
        back = replace(back, groups=tuple(replace(one, canary=0) for one in back.groups))
        if any(group.revision != old.number and not self._canary(group) for group in back.groups):
            back = self._roll(back).plan or back
        self.status = f"goes back from revision {left} to {old.number}"
        return Step(back, f"{self.status}: {why}")

    def _left_from(self, plan: Plan) -> Revision:
        """Return the revision that the groups had which are not at the target; none: the one before."""
        numbers = [group.revision for group in plan.groups if group.revision != plan.target]
        known = {one.number: one for one in revisions.listed(plan)}
        for number in numbers:
            return known.get(number, Revision(number))
        return revisions.before(plan) or revisions.target(plan)

    def _canary(self, group: GroupPlan) -> bool:
        return parts(group.name, self._rules.named).canary
