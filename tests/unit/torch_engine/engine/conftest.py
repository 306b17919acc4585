"""A tiny model, and an engine that serves it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.engine.torch_engine.engine import TorchEngine
from tests.tiny_models import make
from tests.unit.torch_engine.engine.running import running


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    make("gemma 3", directory)
    return directory


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[TorchEngine]:
    async with running(model) as engine:
        yield engine
