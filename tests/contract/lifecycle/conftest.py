"""Lives over real NATS and Redis, begun by the test and ended after it."""

import dataclasses
from collections.abc import AsyncIterator

import pytest

from shared.config import Nats, RedisSettings
from shared.nats_bus import NatsBus
from tests.contract.lifecycle.lives import Begin, Life, configured
from tests.probe_service import Probe


@pytest.fixture
async def begin(nats_settings: Nats, redis_settings: RedisSettings) -> AsyncIterator[Begin]:
    lives: list[Life] = []

    async def begin(
        probe: Probe | None = None, *, nats: Nats | None = None, redis: RedisSettings | None = None, **changes: object
    ) -> Life:
        config = dataclasses.replace(configured(nats or nats_settings, redis or redis_settings), **changes)  # type: ignore[arg-type]
        observer = await NatsBus.open(config.nats, service="tests")
        life = Life(config, probe or Probe(), observer)
        lives.append(life)
        return life

    yield begin
    for life in lives:
        await life.stop()
        await life.observer.close()
