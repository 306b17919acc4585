"""A stage over the session's servers."""

from collections.abc import AsyncIterator

import pytest

from shared.config import (
    Nats,
    RedisSettings,
)
from tests.contract.monitor.stages import Stage, set_up


@pytest.fixture
async def stage(nats_settings: Nats, redis_settings: RedisSettings) -> AsyncIterator[Stage]:
    async with set_up(nats_settings, redis_settings) as made:
        yield made
