"""What a user gets out of a whole cluster: stop strings, seeds and limits, through the real client, on the sim engine.

Numbers in names are those of the OpenAI conformance list.
"""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.local_cluster import LocalCluster

HELLO: Any = [{"role": "user", "content": "Tell me a story."}]
LENGTH = 60


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    cluster = LocalCluster(tmp_path_factory.mktemp("text"), "--standby", "0")
    cluster.start()
    with openai.OpenAI(base_url=cluster.url, api_key="any", max_retries=0, timeout=60) as made:
        yield made
    cluster.close()


@pytest.fixture(scope="module")
def text(client: openai.OpenAI) -> str:
    """What comes when nothing stops it."""
    choice = asked(client)
    assert choice.finish_reason == "length"
    return choice.message.content or ""


def asked(client: openai.OpenAI, **more: Any) -> Any:
    fields = {"model": "chat", "messages": HELLO, "seed": 11, "temperature": 1.0, "max_tokens": LENGTH} | more
    return client.chat.completions.create(**fields).choices[0]


def streamed(client: openai.OpenAI, **more: Any) -> tuple[str, str | None]:
    fields = {"model": "chat", "messages": HELLO, "seed": 11, "temperature": 1.0, "max_tokens": LENGTH} | more
    choices = [chunk.choices[0] for chunk in client.chat.completions.create(**fields, stream=True)]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason


@pytest.mark.parametrize("start", [0, 1, 7, 30])
@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_15_a_stop_string_ends_the_text_before_it_wherever_its_tokens_are_cut(
    client: openai.OpenAI, text: str, start: int, length: int
) -> None:
    stop = text[start : start + length]
    before = text[: text.index(stop)]
    choice = asked(client, stop=stop)
    assert (choice.message.content, choice.finish_reason) == (before, "stop")
    assert streamed(client, stop=[stop]) == (before, "stop")


def test_15_of_stop_strings_that_compete_the_first_to_be_complete_wins(client: openai.OpenAI, text: str) -> None:
    short, long = text[20:22], text[20:30]
    before = text[: text.index(short)]
    assert streamed(client, stop=[long, short, "never in it"]) == (before, "stop")


def test_15_a_match_that_fails_is_released_and_so_is_what_a_limit_leaves_held(client: openai.OpenAI, text: str) -> None:
    fails = text[10:20] + "\x00never"
    half = text[-3:] + "\x00never"
    assert streamed(client, stop=[fails, half]) == (text, "length")


def test_15_stop_tokens_end_the_text_too(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="chat", prompt="Once", seed=5, max_tokens=30, logprobs=0)
    tokens = whole.choices[0].logprobs.tokens or []  # type: ignore[union-attr]
    ids = client.post("/../tokenize", body={"model": "chat", "prompt": tokens[9]}, cast_to=object)
    stopped = client.completions.create(
        model="chat",
        prompt="Once",
        seed=5,
        max_tokens=30,
        extra_body={"stop_token_ids": [ids["tokens"][-1]]},  # type: ignore[index]
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert whole.choices[0].text.startswith(stopped.choices[0].text)
    assert len(stopped.choices[0].text) < len(whole.choices[0].text)


def test_16_completion_tokens_are_those_that_were_generated(client: openai.OpenAI, text: str) -> None:
    for limit in (1, 2, 17):
        answer = client.chat.completions.create(
            model="chat", messages=HELLO, seed=11, temperature=1.0, max_tokens=limit
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == limit
        assert answer.choices[0].finish_reason == "length"
        assert text.startswith((answer.choices[0].message.content or "").rstrip("\ufffd"))


def test_18_the_same_seed_gives_the_same_text_and_another_seed_another(client: openai.OpenAI, text: str) -> None:
    assert asked(client).message.content == text
    assert streamed(client)[0] == text
    assert asked(client, seed=12).message.content != text


def test_18_at_temperature_zero_the_seed_does_not_matter(client: openai.OpenAI) -> None:
    assert asked(client, temperature=0, seed=1).message.content == asked(client, temperature=0, seed=2).message.content
