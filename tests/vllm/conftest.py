"""What the tests with vLLM share. Without vLLM all of them are skipped; `make test-vllm` has an environment with it.

Starting a cluster takes two minutes, so one serves the whole session. Whoever kills some of it waits beforehand until
it is whole; see `whole`.
"""

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from tests.vllm.alone import texts_alone
from tests.vllm.asks import ASKS, prompts_of
from tests.vllm.house import VllmCluster, vllm_cluster
from tests.vllm.parity import Parity, parity
from tests.vllm.tiny_llama import make_tiny_llama


@pytest.fixture(autouse=True, scope="session")
def _vllm_is_there() -> None:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, _vllm_is_there: None) -> Path:
    """A model that vLLM and the torch engine both serve, in float32."""
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def alone(tiny_llama: Path) -> dict[str, str]:
    """The greedy text of each of ASKS as one vLLM by itself writes it."""
    asks = prompts_of(tiny_llama / "tokenizer.json")
    texts = texts_alone(tiny_llama, list(asks.values()))
    return dict(zip(ASKS, texts, strict=True))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def torch_answers(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Parity:
    """What the torch engine says to everything that can be asked for; its cluster is gone again."""
    async with vllm_cluster(tmp_path_factory.mktemp("torch"), tiny_llama, engine="torch", decodes=1) as cluster:
        return await parity(cluster.url())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet(
    tiny_llama: Path, alone: dict[str, str], torch_answers: Parity, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmCluster]:
    """One prefill, two decodes and a standby. What it is compared with is there before it takes the machine."""
    async with vllm_cluster(tmp_path_factory.mktemp("fleet"), tiny_llama, standbys=1) as cluster:
        yield cluster
