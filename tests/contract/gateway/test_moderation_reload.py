"""Reloads under moderation: new rules, faulty ones, and moderators that are gone while scenarios still name them."""

from dataclasses import replace
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from services.gateway.content.moderation import Moderation
from shared.config import ModeratorSettings
from shared.errors import ConfigError
from tests.contract.gateway.house import open_house
from tests.servers import NatsServer, RedisServer


async def test_moderators_that_a_scenario_names_stay_until_the_scenario_changes(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "words").write_text("bomb\n")
    moderation = {
        name: ModeratorSettings(words={"weapons": str(tmp_path / "words")}, action=action)
        for name, action in (("house", "block"), ("manners", "flag"), ("idle", "block"))
    }
    scenario = {"moderate_prompt": ("manners", "house"), "moderate_answer": ("manners",)}
    nats, redis = nats_server.settings(prefix="unmoderated"), redis_server.settings()
    async with (
        open_house(nats, redis, auth="none", scenario=scenario, moderation=moderation) as house,
        AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=10) as client,
    ):
        before = house.found[0]
        free = replace(before.scenario["chat"], moderate_prompt=(), moderate_answer=())
        house.found[0] = replace(before, moderation={}, scenario={"chat": free})
        for _ in range(2):
            assert await house.reloading.reload() == ["scenario.chat"]
            assert sorted(house.gateway._moderation.rules) == ["house", "manners"]
            await client.completions.create(model="chat", prompt="peace", max_tokens=2)
            with pytest.raises(openai.BadRequestError, match="weapons"):
                await client.completions.create(model="chat", prompt="a bomb", max_tokens=2)


async def test_a_reload_of_the_configuration_takes_new_rules_or_refuses_them_whole(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    files = tmp_path
    (files / "rude").write_text("darn\n")
    rules = {"manners": ModeratorSettings(words={"rude": str(files / "rude")})}
    nats, redis = nats_server.settings(prefix="remoderated"), redis_server.settings()
    async with open_house(nats, redis, moderation=rules) as house:
        await takes_or_refuses(house.gateway._moderation, files)


async def takes_or_refuses(moderation: Moderation, files: Path) -> None:
    config = moderation._config
    (files / "new").write_text("gherkin\n")
    settings = ModeratorSettings(words={"pickles": str(files / "new")})
    gone = ModeratorSettings(words={"pickles": str(files / "none")})
    with pytest.raises(ConfigError):
        await moderation._prepare(replace(config, moderation={**config.moderation, "manners": gone}))
    assert moderation._config is config
    manners = moderation.rules["manners"]
    apply = await moderation._prepare(replace(config, moderation={**config.moderation, "manners": settings}))
    assert await moderation.search(manners, ["darn gherkin"]) == "rude"
    apply()
    assert moderation.rules["manners"] is manners
    assert await moderation.search(manners, ["darn gherkin"]) == "pickles"
    (await moderation._prepare(config))()
    assert await moderation.search(manners, ["darn gherkin"]) == "rude"
