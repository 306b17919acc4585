"""Turns what the fleet's decider asks for into entries of the journal, in plain sentences. Performs nothing."""

from collections.abc import Iterable, Mapping
from typing import Final

from services.monitor.changes import changes
from services.monitor.journal import Journal
from shared.messages import Role, ScenarioMap, Status
from shared.policy.fleet.events import (
    Action,
    Assign,
    AssignFailed,
    Cause,
    HeldOff,
    Provide,
    PublishMap,
    Release,
    Retire,
    SendDrain,
    Substituted,
)

WORDS: Final[Mapping[Cause, str]] = {
    Cause.LED: "another monitor leads",
    Cause.READY: "it is ready",
    Cause.NEW_EPOCH: "it has started anew",
    Cause.SILENT: "nothing was heard of it for too long",
    Cause.LEASE_LOST: "its lease in Redis has ended",
    Cause.REFUSED: "its health port refuses connections, so its process is gone",
    Cause.STOPPED: "it said that it stops",
    Cause.DRAINING: "it drains",
    Cause.STUCK: "it was busy and made no step for too long",
    Cause.TOO_SLOW: "it was not ready in time",
    Cause.ASSIGN_FAILED: "another one refused, or did not answer",
    Cause.MISSING: "the group has fewer than it is to have",
    Cause.PLANNED: "the plan has changed",
    Cause.JOINED: "its links are verified",
    Cause.PHASE: "the group has come a step further",
    Cause.SURPLUS: "its group has more than it is to have",
    Cause.UNREACHABLE: "a prefill and a decode do not reach each other",
    Cause.SICK: "its device or node has failed",
    Cause.DEGRADED: "its device or node is degraded, and a healthy one has taken its place",
}
DRAINS: Final = frozenset({Cause.DRAINING, Cause.SURPLUS, Cause.DEGRADED, Cause.SICK})
"""Causes for which a drain is an event of its own; for the others the loss has been told."""


class Chronicle:
    """Knows the last map of each scenario, to tell what the next one changes."""

    def __init__(self, journal: Journal, statuses: Mapping[str, Status]) -> None:
        self._journal = journal
        self._statuses = statuses  # what each instance said last; kept by another
        self._maps: dict[str, ScenarioMap] = {}

    def begin(self, monitor: str, maps: Iterable[ScenarioMap]) -> None:
        """Begin a lead from the maps of the leader before us."""
        self._maps = {one.scenario: one for one in maps}
        self._journal.note("", "lead", f"{monitor} leads from now on")

    def tell(self, actions: list[Action]) -> None:
        """Note what these actions mean."""
        told = {one.instance for one in actions if isinstance(one, Retire)}
        told |= {one.instance for one in actions if isinstance(one, SendDrain) and one.cause in DRAINS}
        told |= {one.instance for one in actions if isinstance(one, Assign) and self._works(one.instance)}
        for action in actions:
            match action:
                case PublishMap(map=scenario_map):
                    self._tell_map(scenario_map, told)
                case Assign():
                    self._tell_assign(action)
                case SendDrain(instance=instance, cause=cause) if cause in DRAINS:
                    self._note(instance, "drain", f"{instance} finishes what it holds and leaves: {WORDS[cause]}")
                case Retire(instance=instance, cause=cause):
                    self._note(instance, "lost", f"{instance} was taken for lost: {WORDS[cause]}")
                case Substituted():
                    self._tell_substituted(action)
                case HeldOff(instance=instance, losses=losses, seconds=seconds):
                    text = f"{instance} was lost {losses} times lately and gets no place for {seconds:.0f} s"
                    self._note(instance, "held-off", text)
                case Provide() | Release() | SendDrain():
                    pass  # what comes of it is told by the supply

    def refused(self, order: Assign, outcome: AssignFailed) -> None:
        """Note that an order came to nothing, and why."""
        what = "refused to become" if outcome.certain else "did not say whether it becomes"
        text = f"{order.instance} {what} {order.role.value} of group {order.group}: {outcome.message}"
        self._journal.note(order.scenario if order.role is not Role.STANDBY else "", "refused", text)

    def _tell_map(self, scenario_map: ScenarioMap, told: set[str]) -> None:
        name = scenario_map.scenario
        for change in changes(self._maps.get(name), scenario_map, told):
            self._journal.note(name, change.kind, change.text)
        self._maps[name] = scenario_map

    def _tell_assign(self, action: Assign) -> None:
        instance, why = action.instance, WORDS[action.cause]
        if action.role is Role.STANDBY:
            self._note(instance, "flip", f"{instance} is to become a standby: {why}")
            return
        where = f"{action.role.value} of group {action.group}"
        revision = f", revision {action.revision.number}" if action.revision.number else ""
        if (was := self._works(instance)) is not None:
            text = f"{instance} changes from {was.role.value} of {was.group or 'no group'} to {where}{revision}: {why}"
            self._journal.note(action.scenario, "flip", text)
        else:
            self._journal.note(action.scenario, "assigned", f"{instance} is to become {where}{revision}: {why}")

    def _tell_substituted(self, action: Substituted) -> None:
        place, steps = action.place, ", ".join(f"{step} {seconds:.2f} s" for step, seconds in action.steps)
        total = sum(seconds for _, seconds in action.steps)
        text = (
            f"{action.instance} has taken the place of a {place.role.value} of group {place.group} within {total:.2f} s"
            f" ({steps}); it was missing because: {WORDS[action.cause]}"
        )
        self._journal.note(place.scenario, "substituted", text)

    def _works(self, instance: str) -> Status | None:
        status = self._statuses.get(instance)
        return status if status is not None and status.role in (Role.PREFILL, Role.DECODE) else None

    def _note(self, instance: str, kind: str, text: str) -> None:
        status = self._statuses.get(instance)
        self._journal.note(status.scenario if status is not None else "", kind, text)
