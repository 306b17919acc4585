"""The revisions of a scenario's model, in the order in which they were to run. The one before is gone back to."""

from typing import Any, Final

from shared.messages import Revision
from shared.messages.fleet import MOST_REVISIONS
from shared.policy.plan import Plan

CONFIGURED: Final = Revision(0)


def listed(plan: Plan) -> tuple[Revision, ...]:
    """Return the known revisions; the configured one is known where none is said to be the target's."""
    if any(one.number == plan.target for one in plan.revisions):
        return plan.revisions
    return (Revision(plan.target), *plan.revisions)


def place(plan: Plan, number: int) -> int:
    """Return a revision's place in the order; one that is not known was before all others."""
    return next((index for index, one in enumerate(listed(plan)) if one.number == number), -1)


def before(plan: Plan) -> Revision | None:
    """Return what ran before the target; None: nothing is known of it."""
    index = place(plan, plan.target)
    return listed(plan)[index - 1] if index > 0 else None


def target(plan: Plan) -> Revision:
    """Return what all groups are to have."""
    return next(one for one in listed(plan) if one.number == plan.target)


def after(plan: Plan, model: str, options: dict[str, Any]) -> Revision:
    """Return the target with another model or other options, under a number that was never used."""
    old = target(plan)
    number = max(one.number for one in (*listed(plan), Revision(_highest(plan)))) + 1
    return Revision(number, model or old.model, {**old.options, **options})


def with_next(plan: Plan, revision: Revision) -> tuple[Revision, ...]:
    """Return the order with this one behind the target. Those that were gone back from are dropped, then the oldest."""
    used = {group.revision for group in plan.groups} | {plan.target}
    known = listed(plan)
    kept = [one for index, one in enumerate(known) if index <= place(plan, plan.target) or one.number in used]
    kept.append(revision)
    for one in list(kept[:-1]):
        if len(kept) > MOST_REVISIONS and one.number not in used:
            kept.remove(one)
    return tuple(kept)


def _highest(plan: Plan) -> int:
    return max((group.revision for group in plan.groups), default=0)
