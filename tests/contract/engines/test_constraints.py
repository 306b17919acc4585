"""What every engine promises of a constrained text: it belongs to its language, whatever the weights are."""

import asyncio
import json
import re
from typing import Any

import pytest

from shared.engine import Sampled
from shared.errors import BadRequest, BatonError, Overloaded
from shared.messages import Constraint, Finish, Stopping
from tests.engine_house import (
    DEADLINE_S,
    OTHERS,
    PROMPT,
    House,
    assert_empty,
    buffer_for,
    extended,
    ids,
    reason,
    relay,
    sequence,
)

END = 3
"""A token that ends a text: in none of these languages."""
LONG = {"max_model_len": 512, "num_blocks": 512}
UP_TO = Stopping(max_tokens=400)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "ok": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2},
    },
    "required": ["name", "age", "ok", "tags"],
    "additionalProperties": False,
}
JSON = Constraint("json_schema", json.dumps(SCHEMA))
REGEX = Constraint("regex", "[a-f]{3}-([0-9]{2}|x{4})[AB]")
LARK = Constraint("lark", 'start: "[" item ("," item){0,3} "]"\nitem: /[0-9]{1,3}/ | "(" item ")"')
WORD = Constraint("regex", "[a-z]{5,}")
LANGUAGES = pytest.mark.parametrize("language", [JSON, REGEX, LARK, WORD], ids=["json", "regex", "lark", "open end"])


def text_of(sampled: list[Sampled]) -> str:
    """Without what ended it."""
    return bytes(one.token_id for one in sampled if one.stop_token is None).decode()


def belongs(text: str, language: Constraint) -> bool:
    """Judged without the library that guides the engine."""
    if language is JSON:
        value = json.loads(text)
        assert list(value) == ["name", "age", "ok", "tags"]
        assert isinstance(value["name"], str)
        assert len(value["name"]) <= 6
        assert value["age"] in range(100)
        assert isinstance(value["ok"], bool)
        assert len(value["tags"]) <= 2
        return set(value["tags"]) <= {"red", "blue"}
    if language is LARK:
        item = r"\(*[0-9]{1,3}\)*"
        return text.count("(") == text.count(")") and re.fullmatch(rf"\[{item}(,{item}){{0,3}}\]", text) is not None
    return re.fullmatch(language.text, text) is not None


@LANGUAGES
async def test_the_text_belongs_to_its_language_whatever_is_drawn(engines: House, language: Constraint) -> None:
    prefill, decode = await engines.worker(frozenset({END}), **LONG), await engines.worker(frozenset({END}), **LONG)
    draws: list[dict[str, Any]] = [{"seed": seed} for seed in range(4)]
    draws += [{"temperature": 0.8, "top_p": 0.9, "top_k": 5}, {"logit_bias": {65: 100.0, 34: -100.0}}]
    wanted = [sequence(f"s{n}", PROMPT, stopping=UP_TO, constraint=language, **draw) for n, draw in enumerate(draws)]
    for sampled in await asyncio.gather(*(relay(prefill, decode, one) for one in wanted)):
        assert reason(sampled) is Finish.STOP
        assert belongs(text_of(sampled), language), text_of(sampled)
    assert_empty(prefill.engine)
    assert_empty(decode.engine)


@LANGUAGES
async def test_every_attempt_continues_as_if_there_had_been_one(engines: House, language: Constraint) -> None:
    worker = await engines.worker(frozenset({END}), **LONG)
    asked: dict[str, Any] = {"stopping": UP_TO, "constraint": language, "seed": 3}
    whole = await relay(worker, worker, sequence("whole", PROMPT, **asked))
    shown = ids(whole)[: len(ids(whole)) - (whole[-1].stop_token is not None)]
    for done in range(1, len(shown)):
        least = UP_TO if done % 16 == 1 else Stopping(max_tokens=done + 2)  # to the end now and then
        again = sequence(f"after-{done}", PROMPT + shown[:done], len(PROMPT), **{**asked, "stopping": least})
        rest = ids(await relay(worker, worker, again))
        assert rest == ids(whole)[done:][: least.max_tokens - done]


@LANGUAGES
async def test_an_attempt_after_the_last_token_ends_and_adds_no_text(engines: House, language: Constraint) -> None:
    worker = await engines.worker(frozenset({END}), **LONG)
    asked: dict[str, Any] = {"stopping": UP_TO, "constraint": language, "seed": 3}
    whole = await relay(worker, worker, sequence("whole", PROMPT, **asked))
    shown = ids(whole)[: len(ids(whole)) - (whole[-1].stop_token is not None)]
    (last,) = await relay(worker, worker, sequence("again", PROMPT + shown, len(PROMPT), **asked))
    assert (last.finish, last.stop_token) == (Finish.STOP, END)


@LANGUAGES
async def test_a_text_cut_by_max_tokens_is_the_beginning_of_the_whole(engines: House, language: Constraint) -> None:
    worker = await engines.worker(frozenset({END}), **LONG)
    whole = ids(await relay(worker, worker, sequence("whole", PROMPT, stopping=UP_TO, constraint=language)))
    for count in (1, 3):
        cut = sequence(f"cut-{count}", PROMPT, stopping=Stopping(max_tokens=count), constraint=language)
        sampled = await relay(worker, worker, cut)
        assert reason(sampled) is Finish.LENGTH
        assert ids(sampled) == whole[:count]


async def test_a_text_that_is_complete_with_its_last_allowed_token_has_stopped(engines: House) -> None:
    worker = await engines.worker()
    exact = sequence("exact", PROMPT, stopping=Stopping(max_tokens=4), constraint=Constraint("regex", "[ab]{4}"))
    sampled = await relay(worker, worker, exact)
    assert (len(sampled), reason(sampled), sampled[-1].stop_token) == (4, Finish.STOP, None)


async def test_constrained_and_free_sequences_do_not_notice_each_other(engines: House) -> None:
    prefill, decode = await engines.worker(frozenset({END}), **LONG), await engines.worker(frozenset({END}), **LONG)
    free = {f"free-{n}": sequence(f"free-{n}", tokens) for n, tokens in enumerate([PROMPT, *OTHERS])}
    bound = {
        f"bound-{n}": sequence(f"bound-{n}", PROMPT, stopping=Stopping(max_tokens=12), constraint=language)
        for n, language in enumerate([JSON, REGEX, LARK, WORD])
    }
    alone = {key: ids(await relay(prefill, decode, one)) for key, one in {**free, **bound}.items()}
    together = await asyncio.gather(*(relay(prefill, decode, one) for one in [*free.values(), *bound.values()]))
    assert {key: ids(sampled) for key, sampled in zip([*free, *bound], together, strict=True)} == alone
    unbound = await engines.worker(frozenset({END}), **LONG)
    for key, one in free.items():
        assert ids(await relay(unbound, unbound, one)) == alone[key]


async def test_a_text_ends_where_its_language_accepts_it_and_nowhere_else(engines: House) -> None:
    # the model would end at once: every token but its end is as good as forbidden
    worker = await engines.worker(frozenset({END}), **LONG)
    eager = {"logit_bias": {END: 100.0}, "temperature": 0.0}
    for stopping in (UP_TO, Stopping(max_tokens=400, ignore_eos=True, stop_token_ids=[END])):
        sampled = await relay(worker, worker, sequence("eager", PROMPT, stopping=stopping, constraint=WORD, **eager))
        text = text_of(sampled)
        assert (reason(sampled), sampled[-1].stop_token) == (Finish.STOP, END)
        assert belongs(text, WORD)
        assert engines.kind == "sim" or len(text) == 5  # the sim engine has no logits to be biased


async def test_an_ignored_end_is_never_drawn(engines: House) -> None:
    worker = await engines.worker(frozenset({END}), **LONG)
    stopping = Stopping(max_tokens=60, ignore_eos=True)
    sampled = await relay(
        worker, worker, sequence("on", PROMPT, stopping=stopping, constraint=WORD, logit_bias={END: 100.0})
    )
    assert reason(sampled) is Finish.LENGTH
    assert belongs(text_of(sampled), WORD)
    assert len(sampled) == 60


async def test_min_tokens_delays_the_end_but_never_breaks_the_language(engines: House) -> None:
    worker = await engines.worker(frozenset({END}), **LONG)
    stopping = Stopping(max_tokens=400, min_tokens=30)
    long_word = await relay(worker, worker, sequence("word", PROMPT, stopping=stopping, constraint=WORD))
    assert len(long_word) >= 30
    assert belongs(text_of(long_word), WORD)
    for language in (REGEX, LARK, JSON):  # complete sooner, or not: either way they are whole
        sampled = await relay(worker, worker, sequence(language.kind, PROMPT, stopping=stopping, constraint=language))
        assert reason(sampled) is Finish.STOP
        assert belongs(text_of(sampled), language)
    short = sequence("short", PROMPT, stopping=stopping, constraint=Constraint("regex", "ab?"))
    sampled = await relay(worker, worker, short)
    assert text_of(sampled) == "ab"
    assert reason(sampled) is Finish.STOP


@pytest.mark.parametrize("eos_ids", [frozenset({END}), frozenset()])
async def test_a_language_of_the_empty_text_alone_ends_at_once(engines: House, eos_ids: frozenset[int]) -> None:
    worker = await engines.worker(eos_ids)
    (only,) = await relay(worker, worker, sequence("empty", PROMPT, constraint=Constraint("regex", "")))
    assert only.finish is Finish.STOP
    assert only.stop_token == only.token_id  # which is no part of the text


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
    wrong = sequence("wrong", [*PROMPT, 33], len(PROMPT), constraint=WORD)
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
    worker = await engines.worker(frozenset({END}), **LONG)
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
