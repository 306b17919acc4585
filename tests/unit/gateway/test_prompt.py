"""Templates, tokens, context, and what a request becomes for the workers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from services.gateway.api.chat import ChatMessage, ChatRequest, TextPart
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.tokens import TokenizeRequest
from services.gateway.prompts.plans import plan_chat, plan_completion
from services.gateway.prompts.prompter import Prompter
from services.gateway.prompts.template import ChatTemplate
from shared.errors import BadRequest, ContextTooLong, TooLarge
from shared.messages import unpack_tokens
from shared.models import ModelSpec
from shared.text import ByteTokenizer

GEMMA = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set loop_messages = messages[1:] -%}"
    "{%- else -%}{%- set loop_messages = messages -%}{%- endif -%}"
    "{%- for message in loop_messages -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('roles must alternate') }}{%- endif -%}"
    "<{{ message['role'] }}>{{ message['content'] | trim }}</>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<model>{%- endif -%}"
)
SPEC = ModelSpec("m", None, 64, 256, frozenset({257}), GEMMA, None)
USER = {"role": "user", "content": " hi "}


@pytest.fixture
def prompter() -> AsyncIterator[Prompter]:
    with ThreadPoolExecutor(1) as threads:
        yield Prompter(SPEC, ByteTokenizer(), threads)


def test_a_template_renders_as_hugging_face_renders_it() -> None:
    template = ChatTemplate(GEMMA, bos="<bos>")
    turns = [{"role": "system", "content": "be kind"}, USER, {"role": "assistant", "content": "yes"}, USER]
    assert template.render(turns, {}) == "<bos><user>hi</><assistant>yes</><user>hi</><model>"
    assert template.render([USER], {"add_generation_prompt": False}) == "<bos><user>hi</>"


def test_template_helpers_are_there() -> None:
    template = ChatTemplate(
        "{% generation %}{{ x | tojson }}{% endgeneration %}{{ strftime_now('%Y')|length }}{{ eos_token }}"
    )
    assert template.render([], {"x": {"a": "<\u00e9>"}}) == '{"a": "<\u00e9>"}4'
    loop = ChatTemplate(
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    )
    assert loop.render([USER, USER], {}) == " hi "


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no') }}",
        "{{ messages[7].content.x }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 1 // 0 }}",
        "{{ 'a' + 1 }}",
        "{{ messages[0].content | dictsort }}",
    ],
)
def test_what_a_template_refuses_or_must_not_do_is_a_bad_request(source: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        ChatTemplate(source).render([USER], {})
    assert refusal.value.param == "messages"


def test_a_message_is_never_read_as_a_template() -> None:
    text = ChatTemplate(GEMMA).render([{"role": "user", "content": "{{ 7 * 7 }}{% raw %}"}], {"messages_": 1})
    assert "{{ 7 * 7 }}{% raw %}" in text


async def test_a_chat_is_tokenised_with_one_bos(prompter: Prompter) -> None:
    turns = [ChatMessage("developer", "x"), ChatMessage("user", [TextPart("a"), TextPart("b")])]
    tokens = await prompter.chat(turns, None)
    assert tokens[0] == 256
    assert prompter.tokenizer.decode(tokens) == "<user>a\nb</><model>"


async def test_a_long_prompt_is_tokenised_in_a_thread_alike(prompter: Prompter) -> None:
    wide = Prompter(replace(SPEC, context=100_000), ByteTokenizer(), prompter._threads)
    assert await wide.text("x" * 50_000) == [256] + [120] * 50_000


async def test_whatever_makes_a_prompt_long_keeps_it_off_the_loop(
    prompter: Prompter, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompter.context, aside, taken = 10**6, prompter.aside, 0

    async def counted(work: Callable[[], Any]) -> Any:
        nonlocal taken
        taken += 1
        return await aside(work)

    monkeypatch.setattr(prompter, "aside", counted)
    await prompter.chat([ChatMessage("user", "x")], {"date": "today"})
    assert taken == 0
    await prompter.chat([ChatMessage("user", "x")], {"date_string": "x" * 3_000})
    await prompter.chat([ChatMessage("user" if place % 2 == 0 else "assistant", "") for place in range(501)], None)
    assert taken == 2


async def test_many_short_prompts_let_streams_have_their_turn(prompter: Prompter) -> None:
    turns = 0

    async def stream() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(stream())
    await plan_completion(CompletionRequest(prompt=["a"] * 100), prompter)
    other.cancel()
    assert turns >= 100


async def test_a_hopeless_text_is_refused_without_being_tokenised(prompter: Prompter) -> None:
    with pytest.raises(ContextTooLong, match="1000000 characters"):
        await prompter.text("x" * 1_000_000)


async def test_an_empty_prompt_is_refused_and_unknown_tokens_too(prompter: Prompter) -> None:
    for prompt in ([], [258], ""):
        with pytest.raises(BadRequest):
            await prompter.text(prompt, special=False)


@pytest.mark.parametrize(("used", "wanted", "room"), [(60, None, 4), (60, 4, 4), (60, 1, 1), (63, 1, 1)])
def test_the_room_is_what_was_asked_for_or_what_is_left(
    prompter: Prompter, used: int, wanted: int | None, room: int
) -> None:
    assert prompter.room(used, wanted, "prompt") == room


@pytest.mark.parametrize(("used", "wanted", "param"), [(60, 5, "max_tokens"), (64, 1, "prompt"), (64, None, "prompt")])
def test_more_than_the_context_leaves_is_refused(prompter: Prompter, used: int, wanted: int | None, param: str) -> None:
    with pytest.raises(ContextTooLong) as refusal:
        prompter.room(used, wanted, param="prompt")
    assert refusal.value.param == param


async def test_counting_takes_a_prompt_or_messages(prompter: Prompter) -> None:
    assert await prompter.count(TokenizeRequest(prompt="a", add_special_tokens=False)) == [97]
    assert await prompter.count(TokenizeRequest(prompt="a")) == [256, 97]
    assert (await prompter.count(TokenizeRequest(messages=[ChatMessage("user", "a")])))[0] == 256
    for wrong in (TokenizeRequest(), TokenizeRequest(prompt="a", messages=[ChatMessage("user", "a")])):
        with pytest.raises(BadRequest):
            await prompter.count(wrong)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest(model="chat", messages=[ChatMessage("user", "hi")], **fields)


async def test_the_client_wins_over_the_models_defaults_and_those_over_openais(prompter: Prompter) -> None:
    prompter.spec = replace(SPEC, sampling={"temperature": 0.7, "top_k": 64.0}, default_stop=("\nuser:", "END"))
    (plan,) = await plan_chat(chat(temperature=0.1, stop=["END"]), prompter)
    assert (plan.sampling.temperature, plan.sampling.top_k, plan.sampling.top_p) == (0.1, 64, 1.0)
    assert plan.stopping.stop == ["END", "\nuser:"]
    (plan,) = await plan_chat(chat(top_k=-1), prompter)
    assert (plan.sampling.temperature, plan.sampling.top_k) == (0.7, 0)
    (plan,) = await plan_completion(CompletionRequest(prompt="a"), prompter)
    assert plan.stopping.stop == []


async def test_choices_share_a_seed_and_prompts_are_counted_once_each(prompter: Prompter) -> None:
    plans = await plan_completion(CompletionRequest(prompt=["a", "bb"], n=2), prompter)
    assert [plan.sampling.choice for plan in plans] == [0, 1, 0, 1]
    assert [plan.first_of_prompt for plan in plans] == [True, False, True, False]
    assert [len(unpack_tokens(plan.prompt)) for plan in plans] == [2, 2, 3, 3]
    assert len({plan.sampling.seed for plan in plans}) == 1
    again = await plan_completion(CompletionRequest(prompt="a"), prompter)
    assert again[0].sampling.seed != plans[0].sampling.seed


async def test_what_would_not_fit_into_a_message_is_refused(prompter: Prompter) -> None:
    with pytest.raises(BadRequest, match="choices"):
        await plan_completion(CompletionRequest(prompt=["a"] * 100, n=2), prompter)
    with pytest.raises(BadRequest, match="vocabulary"):
        await plan_chat(chat(logit_bias={300: 1.0}), prompter)
    with pytest.raises(BadRequest, match="min_tokens"):
        await plan_chat(chat(min_tokens=60), prompter)
    prompter.tokenizer.vocabulary = 2**31  # type: ignore[misc]
    with pytest.raises(TooLarge):
        await plan_chat(chat(logit_bias={2**30 + k: 1.5 for k in range(9000)}), prompter)
