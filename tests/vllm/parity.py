"""Everything that can be asked for, asked of one engine: what another one must answer too. Judges nothing."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.client import Answer, ask

SCHEMA: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}
FORM: Final = {"type": "json_schema", "json_schema": {"name": "form", "schema": SCHEMA}}
TOOL: Final = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA, "strict": True}}
ASKED: Final[dict[str, dict[str, Any]]] = {
    "seed": {},
    "another temperature": {"temperature": 0.6},
    "greedy": {"temperature": 0},
    "top p": {"top_p": 0.7},
    "top k": {"top_k": 8},
    "min p": {"min_p": 0.1},
    "three choices": {"n": 3},
    "penalties": {"frequency_penalty": 0.8, "presence_penalty": 0.5, "temperature": 0},
    "repetition": {"repetition_penalty": 1.3, "temperature": 0},
    "bias": {"logit_bias": {"97": 5, "98": -100}, "temperature": 0},
    "logprobs": {"logprobs": 3, "temperature": 0},
    "logprobs, drawn": {"logprobs": 2},
    "a stop string that comes": {"stop": ["e"]},
    "stop strings that hold text back": {"stop": ["never in it " * 4, "qqqq"]},
    "a chat": {"chat": True},
    "a chat with logprobs": {"chat": True, "logprobs": True, "top_logprobs": 2},
    "json": {"chat": True, "response_format": FORM},
    "json, two of them, greedy": {"chat": True, "response_format": FORM, "n": 2, "temperature": 0},
    "a regular expression": {"guided_regex": "[a-c]{3}-[0-9]{4}"},
    "a function": {"chat": True, "tools": [TOOL], "tool_choice": "required"},
    "one token": {"max_tokens": 1},
}
TOKENS: Final = 120
PATIENCE_S: Final = 240.0


@dataclass(frozen=True)
class Essence:
    """What must be the same whichever engine answers."""

    texts: dict[int, str]
    finishes: list[tuple[int, str]]
    tokens: tuple[int, int]  # prompt's, answer's
    calls: list[Any]  # without their ids
    errors: list[Any]


@dataclass(frozen=True)
class Parity:
    """All answers of one engine."""

    essences: dict[str, Essence]
    logprobs: dict[str, list[float]]  # every number in the answer's logprobs, in order
    second: Essence  # of a prompt that goes on with the first answer


async def parity(url: str) -> Parity:
    """Ask for all of them at once, then go on with one."""
    answers = dict(
        zip(ASKED, await asyncio.gather(*(_ask(url, name, params) for name, params in ASKED.items())), strict=True)
    )
    begun = f"{'a prompt of some blocks; ' * 8}{answers['greedy'].text}"
    second = await _ask(url, begun, {"temperature": 0})
    return Parity(
        {name: _essence(answer) for name, answer in answers.items()},
        {name: _numbers(answer.logprobs) for name, answer in answers.items() if answer.logprobs},
        _essence(second),
    )


async def _ask(url: str, prompt: str, params: dict[str, Any]) -> Answer:
    return await ask(url, prompt, **{"max_tokens": TOKENS, "seed": 11, "timeout_s": PATIENCE_S, **params})


def _essence(answer: Answer) -> Essence:
    choices = sorted({choice for choice, _ in answer.finishes})
    usage = answer.usage or {}
    calls = [[{key: value for key, value in one.items() if key != "id"} for one in call] for call in answer.tool_calls]
    return Essence(
        {choice: answer.text_of(choice) for choice in choices},
        sorted(answer.finishes),
        (usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)),
        calls,
        answer.errors,
    )


def _numbers(found: Any) -> list[float]:
    match found:
        case bool() | str() | None:
            return []
        case int() | float():
            return [float(found)]
        case dict():
            return [number for key in sorted(found) for number in _numbers(found[key])]
        case _:
            return [number for one in found for number in _numbers(one)]
