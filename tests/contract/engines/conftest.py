"""Every kind of engine, for the contract suite."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.engine_house import House, house
from tests.vllm_pool import VllmPool


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from tests.tiny_models import edit, make

    directory = tmp_path_factory.mktemp("tiny")
    make("gemma 3", directory)
    # no token ends a text unless a test says so; and room for more than the sizes that tests ask for
    edit(directory, eos_token_id=None, max_position_embeddings=1024)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture(scope="session", autouse=True)
def _pool_ends() -> Iterator[None]:
    yield
    VllmPool.end()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As small as vLLM's attention on CPU allows."""
    pytest.importorskip("vllm")
    from tests.tiny_models import edit, make

    directory = tmp_path_factory.mktemp("llama")
    make("llama", directory, head_dim=32, max_position_embeddings=1024)
    edit(directory, eos_token_id=None)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture(
    params=[
        "sim",
        "torch",
        pytest.param("torch over 2 ranks", marks=pytest.mark.long),
        pytest.param("torch on cuda", marks=pytest.mark.gpu),
        pytest.param("vllm", marks=pytest.mark.vllm),
    ]
)
async def engines(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    kind, _, device = request.param.removesuffix(" over 2 ranks").partition(" on ")
    model = {"torch": "tiny_model", "vllm": "tiny_llama"}.get(kind)
    directory = None if model is None else request.getfixturevalue(model)
    options: dict[str, object] = {"device": device, "dtype": "float32"} if device else {}
    if "ranks" in request.param:
        options["tensor_parallel"] = 2
    async with house(kind, directory, **options) as made:
        yield made
