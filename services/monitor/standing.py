"""How far a scenario is from its plan, in one sentence: what `--wait` shows meanwhile. Pure."""

from shared.messages import Group, GroupPhase, ScenarioMap


def standing(scenario: str, scenario_map: ScenarioMap | None, *, settled: bool, upgrading: str) -> str:
    """Say how each group stands, and what is still to come. One line."""
    groups = ", ".join(map(_group, scenario_map.groups)) if scenario_map is not None else ""
    now = f"{scenario}: {groups or 'no group'}"
    if upgrading:
        return f"{now}; upgrade: {upgrading}"
    return f"{now}; nothing is on its way" if settled else f"{now}; on its way"


def _group(group: Group) -> str:
    sizes = (
        f"{sum(one.joined for one in group.prefill)} of {group.prefills} prefills,"
        f" {sum(one.joined for one in group.decode)} of {group.decodes} decodes"
    )
    if group.phase is GroupPhase.CLOSING:
        return f"{group.name} closing ({len(group.prefill) + len(group.decode)} members left)"
    return f"{group.name} {group.phase.value} ({sizes})"
