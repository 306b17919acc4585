"""How the fleet is shown: the JSON of `baton status` and of the dashboard's /status. Pure."""

from collections.abc import Iterable
from typing import Any, TypedDict

from shared.messages import Group, InstanceRecord, Role, ScenarioMap, State

LIVING = frozenset({State.READY, State.DRAINING})
_ROLES = list(Role)


class InstanceEntry(TypedDict):
    """One instance."""

    id: str
    role: str
    scenario: str
    group: str
    state: str
    epoch: list[int]
    pid: int
    host: str
    slots: int
    load: int
    health_url: str
    reason: str
    health: str
    revision: int


class GroupEntry(TypedDict):
    """One group's members, by id. `joining` are those of them that nothing goes to yet."""

    name: str
    prefill: list[str]
    decode: list[str]
    phase: str
    prefills: int  # wanted
    decodes: int
    joining: list[str]
    revision: int
    strategy: str
    canary: int


class RevisionEntry(TypedDict):
    """One revision of a scenario's model. Empty model: as configured."""

    number: int
    model: str
    options: dict[str, Any]


class ScenarioEntry(TypedDict):
    """One scenario's map. `ratio` is members in the map, prefill to decode; `target` the revision that is to run."""

    name: str
    version: int
    epoch: list[int]
    ratio: str
    groups: list[GroupEntry]
    target: int
    revisions: list[RevisionEntry]


class Report(TypedDict):
    """The whole fleet."""

    instances: list[InstanceEntry]
    scenarios: list[ScenarioEntry]


def report(records: Iterable[InstanceRecord], leased: set[str], maps: Iterable[ScenarioMap]) -> Report:
    """Build the report. `leased` names those that hold a lease: one that claims to live without it does not."""
    ordered = sorted(records, key=lambda record: (_ROLES.index(record.role), record.id))
    return {
        "instances": [_instance(record, lost=record.state in LIVING and record.id not in leased) for record in ordered],
        "scenarios": [_scenario(scenario) for scenario in sorted(maps, key=lambda scenario: scenario.scenario)],
    }


def _instance(record: InstanceRecord, *, lost: bool) -> InstanceEntry:
    return {
        "id": record.id,
        "role": record.role.value,
        "scenario": record.scenario,
        "group": record.group,
        "state": State.FAILED.value if lost else record.state.value,
        "epoch": list(record.epoch),
        "pid": record.pid,
        "host": record.host,
        "slots": record.slots,
        "load": record.load,
        "health_url": record.health_url,
        "reason": record.reason or ("holds no lease" if lost else ""),
        "health": record.health.value,
        "revision": record.revision,
    }


def _scenario(scenario: ScenarioMap) -> ScenarioEntry:
    groups = [_group(group) for group in scenario.groups]
    prefill = sum(len(group["prefill"]) for group in groups)
    decode = sum(len(group["decode"]) for group in groups)
    return {
        "name": scenario.scenario,
        "version": scenario.version,
        "epoch": list(scenario.epoch),
        "ratio": f"{prefill}:{decode}",
        "groups": groups,
        "target": scenario.target,
        "revisions": [{"number": one.number, "model": one.model, "options": one.options} for one in scenario.revisions],
    }


def _group(group: Group) -> GroupEntry:
    return {
        "name": group.name,
        "prefill": [member.instance for member in group.prefill],
        "decode": [member.instance for member in group.decode],
        "phase": group.phase.value,
        "prefills": group.prefills,
        "decodes": group.decodes,
        "joining": [member.instance for member in (*group.prefill, *group.decode) if not member.joined],
        "revision": group.revision,
        "strategy": group.strategy,
        "canary": group.canary,
    }
