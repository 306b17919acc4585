"""Reading the configuration again: all of it or nothing, and what cannot change in the stride is named."""

from dataclasses import replace

import pytest

from shared.config import Config, FleetSettings, GatewaySettings, ScenarioSettings
from shared.errors import BadRequest, ConfigError
from shared.reloading import Apply, Reloading

OLD = Config(gateway=GatewaySettings(port=1, max_waiting=5), scenario={"chat": ScenarioSettings("a")})


class Part:
    """Takes what it is told to take."""

    def __init__(self, error: Exception | None = None) -> None:
        self.prepared: list[Config] = []
        self.applied: list[Config] = []
        self.error = error

    async def prepare(self, config: Config) -> Apply:
        self.prepared.append(config)
        if self.error is not None:
            raise self.error
        return lambda: self.applied.append(config)


async def test_changed_keys_that_a_part_takes_are_in_force_and_the_others_wait() -> None:
    new = replace(OLD, gateway=GatewaySettings(port=2, max_waiting=6), scenario={"chat": ScenarioSettings("b")})
    reloading, part = Reloading(OLD, lambda: new), Part()
    reloading.add(part.prepare, "gateway.max_waiting")
    assert await reloading.reload() == ["gateway.port", "scenario.chat"]
    assert reloading.config == replace(OLD, gateway=GatewaySettings(port=1, max_waiting=6))
    assert part.applied == [reloading.config]
    assert await reloading.reload() == ["gateway.port", "scenario.chat"]  # told again: it still waits


async def test_a_part_may_take_a_whole_section() -> None:
    new = replace(OLD, scenario={"chat": ScenarioSettings("b"), "code": ScenarioSettings("c")})
    reloading, part = Reloading(OLD, lambda: new), Part()
    reloading.add(part.prepare, "scenario")
    assert await reloading.reload() == []
    assert reloading.config == new


async def test_what_one_part_refuses_changes_nothing_in_another() -> None:
    new = replace(OLD, gateway=GatewaySettings(port=1, max_waiting=6), fleet=FleetSettings(drain_s=1.0))
    reloading, good, bad = Reloading(OLD, lambda: new), Part(), Part(ConfigError(["the rules are wrong"]))
    reloading.add(good.prepare, "gateway.max_waiting")
    reloading.add(bad.prepare, "gateway.cors")
    with pytest.raises(ConfigError, match="the rules are wrong"):
        await reloading.reload()
    assert (good.applied, reloading.config) == ([], OLD)
    bad.error = ZeroDivisionError("a bug")  # of one part, is a refusal too
    with pytest.raises(ConfigError, match="a bug"):
        await reloading.reload()
    assert (good.applied, reloading.config) == ([], OLD)


async def test_parts_are_asked_even_when_no_key_changed_since_the_files_behind_them_may_have() -> None:
    reloading, part = Reloading(OLD, lambda: OLD), Part()
    reloading.add(part.prepare, "gateway.tls_cert")
    assert await reloading.reload() == []
    assert part.applied == [OLD]


async def test_an_instance_without_a_source_says_so() -> None:
    with pytest.raises(BadRequest, match="read again"):
        await Reloading(OLD).reload()
