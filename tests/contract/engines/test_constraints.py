"""What every engine promises of a constrained text: it belongs to its language, whatever the weights are."""

import asyncio
import json
import re
from typing import Any

import pytest

from shared.engine import Sampled
from shared.messages import Constraint, Finish, Stopping
from tests.engine_house import (
    OTHERS,
    PROMPT,
    House,
    assert_empty,
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
        # a language without an end goes on for as long as the model wants
        assert reason(sampled) is Finish.STOP or (language is WORD and reason(sampled) is Finish.LENGTH)
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
