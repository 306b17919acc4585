"""The real Gemma 3 270M under constraints: its own tokens, its own ends, a text in whole or continued."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.config import ScenarioSettings
from shared.engine.opening import open_engine
from shared.messages import Constraint, Finish, Stopping
from shared.models import ModelSpec, resolve
from shared.text import Tokenizer, open_tokenizer
from tests.engine_house import Worker, assert_empty, ids, reason, relay, sequence

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

OPTIONS: dict[str, Any] = {"kv_cache_mb": 256, "max_num_seqs": 8, "max_model_len": 512}
SCHEMA = {
    "type": "object",
    "properties": {
        "animal": {"type": "string", "maxLength": 20},
        "legs": {"enum": [0, 2, 4, 6, 8]},
        "wild": {"type": "boolean"},
    },
    "required": ["animal", "legs", "wild"],
    "additionalProperties": False,
}
JSON = Constraint("json_schema", json.dumps(SCHEMA))


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return resolve("gemma-3-270m", "torch", OPTIONS)


@pytest.fixture(scope="module")
def tokenizer(spec: ModelSpec) -> Tokenizer:
    return open_tokenizer(spec)


@pytest.fixture
async def worker(spec: ModelSpec, tokenizer: Tokenizer) -> AsyncIterator[Worker]:
    engine = open_engine(ScenarioSettings(model="any", engine="torch", engine_options=OPTIONS), spec, tokenizer)
    await engine.start()
    made = Worker(engine, reads=True)
    yield made
    assert_empty(engine)
    await made.close()


@pytest.mark.long
async def test_json_is_whole_in_a_batch_and_continued_elsewhere(worker: Worker, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("A fox as JSON, in one line:\n", special=True)
    asked: dict[str, Any] = {"stopping": Stopping(max_tokens=120), "constraint": JSON}
    wanted = [sequence(f"s{seed}", prompt, seed=seed, **asked) for seed in range(3)]
    wanted.append(sequence("greedy", prompt, temperature=0.0, **asked))
    for one, sampled in zip(wanted, await asyncio.gather(*(relay(worker, worker, one) for one in wanted)), strict=True):
        whole = ids(sampled)
        assert reason(sampled) is Finish.STOP
        assert sampled[-1].stop_token is None
        value = json.loads(tokenizer.decode(whole))
        assert list(value) == ["animal", "legs", "wild"]
        assert value["legs"] in {0, 2, 4, 6, 8}
        for done in (1, len(whole) // 2, len(whole) - 1):
            again = sequence(f"{one.key}-{done}", prompt + whole[:done], len(prompt), **asked, **_drawn(one))
            assert ids(await relay(worker, worker, again)) == whole[done:]


def _drawn(one: Any) -> dict[str, Any]:
    return {"seed": one.sampling.seed, "temperature": one.sampling.temperature}


async def test_the_models_own_end_comes_where_the_language_accepts_it(worker: Worker, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("Bees make", special=True)
    ends = worker.engine.info.eos_ids
    eager = {"logit_bias": dict.fromkeys(ends, 100.0)}
    asked = sequence("eager", prompt, constraint=Constraint("regex", "( [a-z]+){3}[.]?"), **eager)
    sampled = await relay(worker, worker, asked)
    assert sampled[-1].stop_token in ends
    assert len(tokenizer.decode(ids(sampled)).split()) == 3


async def test_a_special_token_comes_where_a_grammar_names_it(worker: Worker, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("Say", special=True)
    lark = Constraint("lark", 'start: / [a-z]{3}/ <start_of_turn> "user"')
    sampled = await relay(worker, worker, sequence("turn", prompt, constraint=lark))
    text = "".join(tokenizer.piece(token)[0] for token in ids(sampled))
    assert text[4:] == "<start_of_turn>user"
    assert reason(sampled) is Finish.STOP
