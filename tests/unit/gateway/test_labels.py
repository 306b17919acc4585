"""From a request's model to its scenario: names, aliases and rules."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.reading import parse
from services.gateway.api.responses import ResponsesRequest
from services.gateway.content.patterns import BadPattern
from services.gateway.prompts.labels import BEYOND, choose
from services.gateway.prompts.rules import READ_CHARS, Facts, Rules
from services.gateway.prompts.scenarios import Scenario, Scenarios, open_scenarios
from shared.config import Config, ScenarioSettings
from shared.config.scenario import WhenSettings
from shared.errors import BadRequest, ConfigError, UnknownScenario

THREADS = ThreadPoolExecutor(1)
THREADS.submit(int).result()  # its thread is no test's own


def scenarios(**settings: dict[str, Any]) -> Scenarios:
    """Each shares the name `any`; tokens are bytes."""
    made = {
        name: ScenarioSettings("sim", engine="sim", aliases=("any",), **{"when": WhenSettings(), **more})
        for name, more in settings.items()
    }
    return open_scenarios(Config(scenario=made), THREADS)


def chat(text: str, **more: Any) -> ChatRequest:
    return ChatRequest(**parse_fields(text), **more)


def parse_fields(text: str) -> dict[str, Any]:
    asked = parse(f'{{"messages":[{{"role":"user","content":"{text}"}}]}}'.encode(), ChatRequest)
    return {"messages": asked.messages, "model": "any"}


async def named(of: Scenarios, asked: Any, tenant: str = "t") -> str:
    chosen: Scenario = await choose(of.sharing("any"), asked, tenant)
    return chosen.name


# ---- rules


@pytest.mark.parametrize(
    ("when", "facts", "why"),
    [
        ({}, Facts(), ""),
        ({"prompt_tokens_from": 10}, Facts(prompt_tokens=10), ""),
        ({"prompt_tokens_from": 10}, Facts(prompt_tokens=9), "prompt_tokens_from is 10"),
        ({"prompt_tokens_below": 10}, Facts(prompt_tokens=9), ""),
        ({"prompt_tokens_below": 10}, Facts(prompt_tokens=10), "prompt_tokens_below is 10"),
        ({"max_tokens_from": 10}, Facts(max_tokens=9), "max_tokens_from is 10"),
        ({"max_tokens_from": 10}, Facts(max_tokens=None), ""),
        ({"max_tokens_below": 10}, Facts(max_tokens=9), ""),
        ({"max_tokens_below": 10}, Facts(max_tokens=None), "max_tokens_below is 10"),
        ({"tools": "yes"}, Facts(tools=True), ""),
        ({"tools": "yes"}, Facts(), "tools is yes"),
        ({"tools": "no"}, Facts(tools=True), "tools is no"),
        ({"streamed": "yes"}, Facts(), "streamed is yes"),
        ({"streamed": "no"}, Facts(), ""),
        ({"tenants": ("a", "b")}, Facts(tenant="b"), ""),
        ({"tenants": ("a", "b")}, Facts(tenant="c"), "tenants are others"),
        ({"prompt_matches": "(?i)sql|python"}, Facts(text="some Python please"), ""),
        ({"prompt_matches": "^sql"}, Facts(text="no sql"), "prompt_matches does not"),
        ({"prompt_matches": "x"}, Facts(text=" " * READ_CHARS + "x"), "prompt_matches does not"),
        ({"prompt_matches": "x"}, Facts(text="\ud800x"), ""),
        ({"tools": "yes", "streamed": "yes"}, Facts(tools=True), "streamed is yes"),
    ],
)
def test_a_rule_holds_or_says_why_not(when: dict[str, Any], facts: Facts, why: str) -> None:
    assert Rules(WhenSettings(**when)).why_not(facts) == why


def test_a_pattern_takes_linear_time_whatever_it_is() -> None:
    rules = Rules(WhenSettings(prompt_matches="(a+)+$"))
    assert rules.why_not(Facts(text="a" * (READ_CHARS - 1) + "b")) == "prompt_matches does not"


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", "a" * 501])
def test_a_pattern_that_cannot_be_used_is_a_mistake_in_the_configuration(pattern: str) -> None:
    with pytest.raises(BadPattern):
        Rules(WhenSettings(prompt_matches=pattern))
    with pytest.raises(ConfigError, match=r"scenario\.one\.when\.prompt_matches cannot be used"):
        scenarios(one={"when": WhenSettings(prompt_matches=pattern)})


# ---- choosing


async def test_the_first_whose_rules_hold_is_chosen_and_else_the_first_without_any() -> None:
    of = scenarios(
        plain={},
        other={},
        code={"when": WhenSettings(prompt_matches="def ")},
        long={"when": WhenSettings(prompt_tokens_from=50)},
    )
    assert await named(of, chat("def f")) == "code"
    assert await named(of, chat("x" * 99)) == "long"
    assert await named(of, chat("def f" + "x" * 99)) == "code"
    assert await named(of, chat("hello")) == "plain"


async def test_where_no_rule_holds_the_error_says_which_did_not() -> None:
    of = scenarios(code={"when": WhenSettings(tools="yes")}, long={"when": WhenSettings(prompt_tokens_from=5000)})
    words = "The model 'any' does not take such a request: of 'code' tools is yes; of 'long' prompt_tokens_from is 5000"
    with pytest.raises(UnknownScenario, match=words) as caught:
        await named(of, chat("hello"))
    assert caught.value.param == "model"


async def test_rules_read_texts_of_every_kind() -> None:
    of = scenarios(plain={}, code={"when": WhenSettings(prompt_matches="^def")})
    assert await named(of, CompletionRequest(prompt=["def", "x"])) == "code"
    assert await named(of, CompletionRequest(prompt=list(b"def f"))) == "code"
    assert await named(of, CompletionRequest(prompt="x def")) == "plain"
    assert await named(of, ResponsesRequest(input="def")) == "code"
    assert await named(of, ResponsesRequest(input="x", instructions="def")) == "code"


async def test_a_prompt_that_fits_nowhere_is_longer_than_any_bound() -> None:
    of = scenarios(short={"when": WhenSettings(prompt_tokens_below=1 << 30)}, rest={})
    with_room = of.sharing("any")[0].prompter.context
    assert await named(of, CompletionRequest(prompt="x" * (with_room * 128 + 1))) == "rest"
    assert BEYOND > 1 << 30


async def test_a_bad_prompt_is_refused_as_ever() -> None:
    of = scenarios(short={"when": WhenSettings(prompt_tokens_below=10)})
    with pytest.raises(BadRequest):
        await named(of, CompletionRequest(prompt=[1 << 30]))


async def test_the_longest_of_several_prompts_counts() -> None:
    of = scenarios(short={"when": WhenSettings(prompt_tokens_below=10)}, rest={})
    assert await named(of, CompletionRequest(prompt=["a", "b" * 20])) == "rest"


def test_a_scenarios_own_name_wins_over_another_ones_alias() -> None:
    of = scenarios(any={}, other={})
    assert of.sharing("any") == []
    assert of.find("any").name == "any"


def test_names_without_a_request_lead_to_the_first_without_rules() -> None:
    of = scenarios(code={"when": WhenSettings(tools="yes")}, plain={})
    assert of.find("any").name == "plain"
    assert of.find("any", "code").name == "code"
    assert scenarios(code={"when": WhenSettings(tools="yes")}).find("any").name == "code"
    with pytest.raises(UnknownScenario):
        of.find("any/model")


def test_models_list_aliases_for_those_who_may_use_what_is_behind_them() -> None:
    of = scenarios(code={}, plain={})
    assert [card["id"] for card in of.cards(lambda _: True)] == ["code", "plain", "any"]
    assert [card["id"] for card in of.cards(lambda name: name == "plain")] == ["plain", "any"]
    assert of.cards(lambda _: False) == []
