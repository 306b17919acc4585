"""A wired cluster for a whole module; every line is healed after each test."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.wired import Wired, wired


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wired_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wired]:
    async with wired(tmp_path_factory.mktemp("wired")) as hurt:
        yield hurt


@pytest_asyncio.fixture(loop_scope="module")
async def hurt(wired_cluster: Wired) -> AsyncIterator[Wired]:
    yield wired_cluster
    await wired_cluster.heal()
