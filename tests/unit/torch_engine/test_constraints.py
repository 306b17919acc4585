"""Constraints in the torch engine: what a tiny model cannot follow, or no longer, harms its own sequence only."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import BadRequest
from shared.messages import Constraint, Finish, Stopping
from tests.engine_house import PROMPT, House, assert_empty, buffer_for, extended, house, ids, reason, relay, sequence
from tests.tiny_models import edit, make

DEEP = Constraint("lark", 'start: s\ns: s s | s s s | s s s s | "a" | "b"')
"""Every token adds to the ways in which the text can be read, until there are too many."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    make("gemma 3", directory)
    edit(directory, eos_token_id=None)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture
async def engines(model: Path) -> AsyncIterator[House]:
    async with house("torch", model) as made:
        yield made


async def test_an_engine_without_a_tokenizer_refuses_constraints_and_serves_the_rest(model: Path) -> None:
    from shared.engine.torch_engine.engine import TorchEngine

    engine = TorchEngine(model, {"block_size": 4, "num_blocks": 40, "max_model_len": 64})
    await engine.start()
    try:
        with pytest.raises(BadRequest, match="tokenizer"):
            await engine.prefill(sequence("a", PROMPT, constraint=DEEP), buffer_for(engine, len(PROMPT)))
        await engine.prefill(sequence("a", PROMPT), buffer_for(engine, len(PROMPT)))
        await engine.release("a")
        assert_empty(engine)
    finally:
        await engine.close()


async def test_a_text_that_these_tokens_cannot_continue_fails_and_its_neighbours_do_not(engines: House) -> None:
    # of 中's bytes the model has none: its vocabulary ends at 199
    worker = await engines.worker()
    dead = {"constraint": Constraint("regex", "[ab]{3}中"), "seed": 5}
    stuck, free = await asyncio.gather(
        relay(worker, worker, sequence("stuck", PROMPT, **dead)),
        relay(worker, worker, sequence("free", PROMPT)),
        return_exceptions=True,
    )
    assert isinstance(stuck, BadRequest)
    assert "none of the tokens" in str(stuck)
    assert isinstance(free, list)
    assert ids(free) == await worker.alone(PROMPT, 12)
    at_once = sequence("at once", PROMPT, constraint=Constraint("regex", "中"))
    with pytest.raises(BadRequest, match="none of the tokens"):
        await worker.prefill(at_once)
    assert_empty(worker.engine)


async def test_a_language_that_outgrows_its_limits_on_the_way_fails_alone(engines: House) -> None:
    worker = await engines.worker(max_model_len=256, num_blocks=200)
    stopping = Stopping(max_tokens=120)
    drawn: dict[str, Any] = {"stopping": stopping}
    deep, free = await asyncio.gather(
        relay(worker, worker, sequence("deep", PROMPT, constraint=DEEP, **drawn)),
        relay(worker, worker, sequence("free", PROMPT, **drawn)),
        return_exceptions=True,
    )
    assert isinstance(deep, BadRequest)
    assert not deep.retryable
    assert "too complex" in str(deep)
    assert worker.ending("deep").tokens
    assert isinstance(free, list)
    assert (len(free), reason(free)) == (120, Finish.LENGTH)
    assert_empty(worker.engine)


def assert_alike(one: list[tuple[int, float]], other: list[tuple[int, float]]) -> None:
    """But for what another order of adding up makes of a float."""
    assert [token for token, _ in one] == [token for token, _ in other]
    assert [value for _, value in one] == pytest.approx([value for _, value in other], abs=1e-4)


async def test_a_constraint_changes_no_logprob(engines: House) -> None:
    worker = await engines.worker()
    first, _ = await worker.prefill(sequence("free", PROMPT, logprobs=5))
    bound, buffer = await worker.prefill(
        sequence("bound", PROMPT, logprobs=5, constraint=Constraint("regex", "[a-c]+"))
    )
    assert first.alternatives is not None
    assert bound.alternatives is not None
    assert bound.token_id in b"abc"
    assert_alike(bound.alternatives.top, first.alternatives.top)
    again = sequence("again", [*PROMPT, bound.token_id], len(PROMPT), logprobs=5)
    free, _ = await worker.prefill(again)
    wanted = extended(sequence("bound", PROMPT, logprobs=5, constraint=Constraint("regex", "[a-c]+")), bound)
    await worker.engine.insert(wanted, len(PROMPT), buffer)
    await worker.ending("bound").over.wait()
    second = worker.ending("bound").sampled[0].alternatives
    assert second is not None
    assert free.alternatives is not None
    assert_alike(second.top, free.alternatives.top)
