"""What every engine promises of constraints it cannot or may not follow: refusals, release and close leave nothing."""

import asyncio
import json
from typing import Any

import pytest

from shared.errors import BadRequest, BatonError, Overloaded
from shared.messages import Constraint, Stopping
from tests.engine_house import (
    DEADLINE_S,
    PROMPT,
    House,
    assert_empty,
    buffer_for,
    extended,
    ids,
    relay,
    sequence,
)

LONG = {"max_model_len": 512, "num_blocks": 512}
BAD = {
    "regex": Constraint("regex", "a[b"),
    "schema": Constraint("json_schema", '{"type": "objekt"}'),
    "no json": Constraint("json_schema", '{"type": '),
    "keyword": Constraint("json_schema", '{"type": "array", "uniqueItems": true}'),
    "lark": Constraint("lark", 'start: "a" unknown'),
    "special token": Constraint("lark", 'start: "a" <|nobody knows it|>'),
    "surrogate": Constraint("regex", "\ud800"),
    "too long": Constraint("regex", "a" * 1_000_000),
}


@pytest.mark.parametrize("language", BAD.values(), ids=BAD.keys())
async def test_a_constraint_that_is_none_is_refused_for_good_and_leaves_nothing(
    engines: House, language: Constraint
) -> None:
    worker = await engines.worker()
    free = sequence("free", PROMPT)
    first, buffer = await worker.prefill(free)
    bad = sequence("bad", PROMPT, constraint=language)
    for attempt in (
        worker.engine.prefill(bad, buffer_for(worker.engine, len(PROMPT))),
        worker.engine.insert(extended(bad, first), len(PROMPT), buffer),
    ):
        with pytest.raises(BadRequest) as refused:
            await attempt
        assert not refused.value.retryable
        assert len(str(refused.value)) < 600
    assert_empty(worker.engine)
    assert ids(await relay(worker, worker, free)) == await worker.alone(PROMPT, 12)


async def test_what_was_generated_must_fulfil_the_constraint(engines: House) -> None:
    worker = await engines.worker()
    wrong = sequence("wrong", [*PROMPT, 33], len(PROMPT), constraint=Constraint("regex", "[a-z]+"))
    with pytest.raises(BadRequest, match="generated"):
        await worker.prefill(wrong)
    assert_empty(worker.engine)


HUGE = {
    "enum": Constraint("json_schema", json.dumps({"enum": [f"value {n}" for n in range(9000)]})),
    "keys": Constraint(
        "json_schema",
        json.dumps({"type": "object", "properties": {f"key{n}": {"type": "string"} for n in range(1000)}}),
    ),
    "repeats": Constraint("regex", "(a{1000}){1000}"),
    "states": Constraint("regex", ".*(a|b).{30}(c|d).{20}x"),
    "nested": Constraint("json_schema", '{"type": "array", "items": ' * 3000 + "{}" + "}" * 3000),
    "rules": Constraint("lark", "start: " + " | ".join(f'"{n}" a' for n in range(9000)) + '\na: "x"'),
}


@pytest.mark.parametrize("language", HUGE.values(), ids=HUGE.keys())
async def test_a_huge_language_is_followed_or_refused_within_the_deadline(engines: House, language: Constraint) -> None:
    worker = await engines.worker(frozenset(), **LONG)
    free = sequence("free", PROMPT, stopping=Stopping(max_tokens=60))
    alone = ids(await relay(worker, worker, free))

    again = sequence("again", PROMPT, stopping=Stopping(max_tokens=60))
    huge = sequence("huge", PROMPT, stopping=Stopping(max_tokens=60), constraint=language)
    async with asyncio.timeout(DEADLINE_S):
        sampled, followed = await asyncio.gather(
            relay(worker, worker, again), relay(worker, worker, huge), return_exceptions=True
        )
    assert isinstance(followed, BadRequest | list)
    assert isinstance(sampled, list)
    assert ids(sampled) == alone
    assert_empty(worker.engine)


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
async def test_release_while_the_constraint_is_compiled_leaves_nothing(engines: House, delay: int) -> None:
    worker = await engines.worker()
    wanted = sequence("early", PROMPT, constraint=HUGE["keys"])
    first, buffer = await worker.prefill(sequence("free", PROMPT))
    for attempt in (
        worker.engine.prefill(wanted, buffer_for(worker.engine, len(PROMPT))),
        worker.engine.insert(extended(wanted, first), len(PROMPT), buffer),
    ):
        running = asyncio.create_task(attempt, name="attempt")
        for _ in range(delay + 1):
            await asyncio.sleep(0)
        await worker.engine.release("early")
        assert_empty(worker.engine)
        async with asyncio.timeout(DEADLINE_S):
            (result,) = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(result, BatonError)
        assert_empty(worker.engine)


async def test_close_while_a_constraint_is_compiled_ends_whoever_waits(engines: House) -> None:
    worker = await engines.worker()
    wanted = sequence("late", PROMPT, constraint=HUGE["keys"])
    running = asyncio.create_task(worker.engine.prefill(wanted, buffer_for(worker.engine, len(PROMPT))), name="prefill")
    await asyncio.sleep(0)
    await worker.close()
    async with asyncio.timeout(DEADLINE_S):
        (result,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(result, BatonError)


async def test_a_constrained_sequence_that_is_pushed_out_goes_on_elsewhere(engines: House) -> None:
    if engines.kind == "vllm":
        pytest.skip("vLLM computes what it has pushed out again by itself")
    small = {"num_blocks": 40, "max_model_len": 160}
    source, worker = await engines.worker(**LONG), await engines.worker(reads=False, **small)
    asked: dict[str, Any] = {
        "constraint": Constraint("regex", "([a-d][0-9]){80}"),
        "stopping": Stopping(max_tokens=140),
    }
    wanted = [sequence(name, PROMPT, seed=seed, **asked) for seed, name in enumerate(["old", "young"])]
    whole = {one.key: ids(await relay(source, source, one)) for one in wanted}
    handed = [(extended(one, first), buffer) for one in wanted for first, buffer in [await source.prefill(one)]]
    await asyncio.gather(*(worker.engine.insert(one, len(PROMPT), buffer) for one, buffer in handed))
    worker.read()
    async with asyncio.timeout(DEADLINE_S):
        await worker.ending("young").over.wait()
        await worker.ending("old").over.wait()
    (lost,) = (key for key in whole if isinstance(worker.ending(key).error, Overloaded))
    for one, _ in handed:
        so_far = one.tokens + worker.ending(one.key).tokens
        if one.key == lost:
            again = sequence("again", so_far, len(PROMPT), seed=one.sampling.seed, **asked)
            so_far += ids(await relay(source, source, again))
        assert so_far == PROMPT + whole[one.key]
    assert_empty(worker.engine)
