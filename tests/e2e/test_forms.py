"""Calls and forms of the text through whole clusters: whatever the weights are, what was demanded is what comes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.local_cluster import LocalCluster

TEMPLATE = """\
{{- '<bos>' }}
{%- if tools %}{%- for tool in tools %}{{- tool | tojson ~ '\\n' }}{%- endfor %}{%- endif %}
{%- for message in messages %}{{- message.role ~ ': ' ~ message.content ~ '\\n' }}
{%- for call in message.tool_calls or [] %}{{- '[TOOL_CALLS]' ~ call.function.name ~ '[ARGS]' }}
{{- call.function.arguments | tojson }}{%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}
"""
"""In the manner of Mistral's: the marks are special tokens, which no other text shows."""
SPECIAL = ["<bos>", "<eos>", "[TOOL_CALLS]", "[ARGS]"]
CITY: Any = {
    "type": "object",
    "properties": {
        "city": {"$ref": "#/$defs/city"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "note": {"type": "string", "maxLength": 4},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {"city": {"enum": ["Paris", "Rome"]}},
}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": CITY, "strict": True}}
TIME: Any = {"type": "function", "function": {"name": "get_time"}}
HELLO: Any = [{"role": "user", "content": "hello"}]


def tokenizer(directory: Path) -> int:
    """Save a byte-level tokenizer and a chat template; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    corpus = ['{"name": "get_weather", "city": "Paris"}, "days": 3, hello there\n'] * 8
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(corpus, trainer)
    made.save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return made.get_vocab_size()


def of_torch(folder: Path) -> str:
    from tests.tiny_models import make

    model = folder / "tiny"
    model.mkdir()
    size = tokenizer(model)
    make("qwen 3", model, vocab_size=size, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1)
    return f'model = "{model}"\nengine = "torch"\n[scenario.chat.engine_options]\nmax_model_len = 4096\n'


def of_sim(folder: Path) -> str:
    model = folder / "tokens"
    model.mkdir()
    tokenizer(model)
    (model / "config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    return (
        f'model = "sim"\nengine = "sim"\n[scenario.chat.engine_options]\ntokenizer = "{model}"\nmax_model_len = 8192\n'
    )


@pytest.fixture(scope="module", params=["sim", "torch"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp(request.param)
    config = folder / "baton.toml"
    config.write_text("[scenario.chat]\n" + (of_sim if request.param == "sim" else of_torch)(folder))
    cluster = LocalCluster(folder, "--standby", "0", "--engine", request.param, "--config", str(config))
    cluster.start()
    with openai.OpenAI(base_url=cluster.url, api_key="any", max_retries=0, timeout=60) as made:
        yield made
    cluster.close()


def test_json_that_fits_its_schema_comes_whatever_the_weights(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}}
    answer = client.chat.completions.create(
        model="chat", messages=HELLO, response_format=form, n=4, seed=3, max_tokens=300
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop", choice.message.content
        fits(json.loads(choice.message.content or ""))


def fits(arguments: dict[str, Any]) -> None:
    assert arguments["city"] in ("Paris", "Rome")
    assert 1 <= arguments["days"] <= 7
    assert len(arguments.get("note", "")) <= 4
    assert set(arguments) <= {"city", "days", "note"}


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_is_demanded_comes_and_its_marks_are_seen(client: openai.OpenAI, stream: bool) -> None:  # noqa: FBT001
    asked: Any = {"model": "chat", "messages": HELLO, "tools": [WEATHER, TIME], "max_tokens": 300, "seed": 5}
    asked |= {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}, "parallel_tool_calls": False}
    if not stream:
        message = client.chat.completions.create(**asked).choices[0]
        assert message.finish_reason == "tool_calls"
        assert message.message.content is None
        (call,) = message.message.tool_calls or []
        function: Any = call.function  # type: ignore[union-attr]
        fits(json.loads(function.arguments))
        return
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    pieces = [piece for chunk in chunks for piece in chunk.delta.tool_calls or []]
    assert pieces[0].function.name == "get_weather"
    assert len(pieces) > 3
    assert not any(chunk.delta.content for chunk in chunks)
    fits(json.loads("".join(piece.function.arguments for piece in pieces)))
    assert chunks[-1].finish_reason == "tool_calls"


def test_calls_and_their_results_go_back_into_the_next_prompt(client: openai.OpenAI) -> None:
    asked: Any = {"model": "chat", "tools": [WEATHER], "max_tokens": 300, "seed": 6}
    first = client.chat.completions.create(messages=HELLO, tool_choice="required", **asked).choices[0].message
    calls = first.tool_calls or []
    assert calls
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
    second = client.chat.completions.create(
        messages=[*HELLO, first, *results], tool_choice="none", stop=["\n"], **{**asked, "max_tokens": 8}
    )
    assert second.choices[0].finish_reason in ("stop", "length")
    assert second.choices[0].message.tool_calls is None


def test_a_choice_and_an_expression_hold(client: openai.OpenAI) -> None:
    for seed in range(3):
        one = client.chat.completions.create(
            model="chat", messages=HELLO, seed=seed, extra_body={"guided_choice": ["yes", "no"]}
        )
        assert one.choices[0].message.content in ("yes", "no")
        text = client.completions.create(
            model="chat", prompt="x", seed=seed, max_tokens=50, extra_body={"guided_regex": "[a-c]{5}-[0-9]{2}"}
        )
        word, _, digits = text.choices[0].text.partition("-")
        assert (len(word), set(word) <= set("abc"), len(digits), digits.isdigit()) == (5, True, 2, True)


def spoken(client: openai.OpenAI, text: str, **more: Any) -> tuple[list[str], str, int]:
    """What a stream tells of a text that the model cannot but write: deltas, reason, number of generated tokens."""
    body: Any = {"guided_choice": [text]}
    stream = client.chat.completions.create(
        model="chat", messages=HELLO, stream=True, stream_options={"include_usage": True}, extra_body=body, **more
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    (reason,) = [one.choices[0].finish_reason for one in chunks if one.choices and one.choices[0].finish_reason]
    return [delta for delta in deltas if delta], reason or "", chunks[-1].usage.completion_tokens  # type: ignore[union-attr]


def test_14_characters_split_over_tokens_come_whole(client: openai.OpenAI) -> None:
    text = (
        "\U0001f469\U0001f3fd\u200d\U0001f680 \u65e5\u672c\u8a9e e\u0302\u0323 \U0001f3f3\ufe0f\u200d\U0001f308\u20ac"
    )
    deltas, reason, tokens = spoken(client, text)
    assert "".join(deltas) == text
    assert reason == "stop"
    assert tokens > len(text)  # the tokens are bytes of these characters
    assert not any("\ufffd" in delta for delta in deltas)
    whole = client.chat.completions.create(
        model="chat", messages=HELLO, extra_body={"guided_choice": [text]}, max_tokens=tokens - 3
    )
    assert text.startswith((whole.choices[0].message.content or "").rstrip("\ufffd"))
    assert whole.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("before END after", "END", "before "),
        ("before END after", ["ND", "END"], "before "),
        ("END after", ["END"], ""),
        ("an \U0001f680 flies", ["\U0001f680"], "an "),
        ("abcab abc", ["abc", "ab"], ""),
        ("aab aabc", ["aabc"], "aab "),
        ("the EN of it", ["END"], "the EN of it"),
        ("at the EN", ["END"], "at the EN"),
        ("a b c d", ["x", "c", "zz", " d"], "a b "),
    ],
)
def test_15_text_ends_before_a_stop_wherever_it_lies(
    client: openai.OpenAI, text: str, stop: str | list[str], shown: str
) -> None:
    deltas, reason, tokens = spoken(client, text, stop=stop)
    assert "".join(deltas) == shown
    assert reason == "stop"
    assert tokens > 0


def test_15_text_that_was_held_back_is_told_when_the_limit_comes_first(client: openai.OpenAI) -> None:
    _, _, all_tokens = spoken(client, "see the EN")
    deltas, reason, tokens = spoken(client, "see the ENDLESS", stop=["ENDLESS!"], max_tokens=all_tokens)
    assert reason == "length"
    assert tokens == all_tokens
    assert "".join(deltas).startswith("see the")
    assert "see the ENDLESS".startswith("".join(deltas))


def test_18_the_same_seed_gives_the_same_text_and_zero_is_greedy(client: openai.OpenAI) -> None:
    def text(**more: Any) -> str:
        answer = client.completions.create(model="chat", prompt="once", max_tokens=12, **more)
        return answer.choices[0].text

    assert text(seed=1) == text(seed=1)
    assert len({text(seed=seed, temperature=2) for seed in range(4)}) > 1
    assert len({text(seed=seed, temperature=0) for seed in range(3)}) == 1
