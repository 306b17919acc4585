"""The groups that a scenario's settings ask for, for whoever starts workers or plans them. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from shared.config.scenario import GroupSettings, ScenarioSettings
from shared.policy.steering.names import parts

FIRST: Final = "main"
"""Of the groups without a name of their own; the others are `main-2`, `main-3` and so on."""


@dataclass(frozen=True, slots=True)
class ConfiguredGroup:
    """One group as the configuration has it."""

    name: str
    prefill: int
    decode: int
    strategy: str = ""


def ordinal_name(number: int) -> str:
    """Name the group of that number, counted from 1, among those without a name of their own."""
    return FIRST if number == 1 else f"{FIRST}-{number}"


def configured_groups(settings: ScenarioSettings) -> list[ConfiguredGroup]:
    """List the groups in order: `groups` of them, then those by name."""
    plain = [
        ConfiguredGroup(ordinal_name(one + 1), settings.prefill, settings.decode) for one in range(settings.groups)
    ]
    named = [_named(name, group, settings) for name, group in settings.group.items()]
    return [one for one in plain if one.name not in settings.group] + named


def _named(name: str, group: GroupSettings, settings: ScenarioSettings) -> ConfiguredGroup:
    return ConfiguredGroup(name, group.prefill or settings.prefill, group.decode or settings.decode, group.strategy)


def in_group(settings: ScenarioSettings, name: str) -> ScenarioSettings:
    """Settings as they are for a member of that group, at any revision: what it says itself wins over the scenario."""
    own = settings.group.get(parts(name, settings.group).base)
    if own is None or not (own.engine_options or own.devices_per_worker):
        return settings
    devices = own.devices_per_worker or settings.devices_per_worker
    options = {**settings.engine_options, **own.engine_options}
    return replace(settings, engine_options=options, devices_per_worker=devices)
