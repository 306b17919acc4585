"""The real Gemma 3 270M through a cluster with vLLM in it, and the death of a decode in the middle of its texts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from shared.messages import Role
from shared.models.resolving import find
from tests.vllm.alone import texts_alone
from tests.vllm.asks import texts_of
from tests.vllm.house import VLLM, VllmCluster, busiest, descendants, until_gone, vllm_cluster

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.model,
    pytest.mark.timeout(2400),
    pytest.mark.asyncio(loop_scope="module"),
]

PROMPTS = {
    "a story": ("The harbour town of Kessel had three clocks, and no two of them agreed. ", 64),
    "a long beginning": ("It was a quiet evening, and the tide went out as it always did. " * 20, 32),
    "a list": ("The capitals of Europe are: Paris, London, Berlin, ", 40),
    "code": ("def fibonacci(n):\n    ", 48),
    "a question": ("Question: Why is the sky blue?\nAnswer:", 56),
    "German": ("Es war einmal ein König, der hatte drei Söhne. ", 24),
}
OPTIONS = {**VLLM, "kv_cache_mb": 512}


@pytest.fixture(scope="module")
def gemma(_vllm_is_there: None) -> Path:
    return find("gemma-3-270m")


@pytest.fixture(scope="module")
def alone(gemma: Path) -> dict[str, str]:
    return dict(zip(PROMPTS, texts_alone(gemma, list(PROMPTS.values())), strict=True))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    gemma: Path, alone: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmCluster]:
    async with vllm_cluster(tmp_path_factory.mktemp("gemma"), gemma, options=OPTIONS) as cluster:
        yield cluster


async def test_its_texts_are_those_of_one_vllm_alone(fleet: VllmCluster, alone: dict[str, str]) -> None:
    assert await texts_of(fleet.url(), PROMPTS) == alone
    await fleet.quiet()


async def test_a_decode_killed_amid_its_texts_changes_none_of_them(fleet: VllmCluster, alone: dict[str, str]) -> None:
    asking = asyncio.ensure_future(texts_of(fleet.url(), PROMPTS))
    try:
        decodes = [process.name for process in fleet.living(Role.DECODE)]
        victim = fleet.processes[await busiest(fleet, decodes, 2)]
        of_engine = descendants(victim)
        victim.kill()
        assert await asking == alone
    finally:
        asking.cancel()
    await until_gone(of_engine)
    await fleet.quiet()
