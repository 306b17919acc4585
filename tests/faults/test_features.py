"""F34: whatever was asked for, a stream whose decode is killed midway is what it would have been, event for event."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.messages import Role
from tests.faults.client import Answer, Event, ask
from tests.faults.cluster import Cluster, cluster
from tests.faults.trial import joined

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name", "tags"],
}
FORM = {"type": "json_schema", "json_schema": {"name": "form", "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "greedy": {"temperature": 0},
    "several choices": {"n": 3},
    "logprobs": {"logprobs": 3},
    "penalties": {"frequency_penalty": 0.8, "presence_penalty": 0.5},
    "bias": {"logit_bias": {"97": 5, "98": -100}},
    "stop strings that hold text back": {"stop": ["never in it " * 4, "qqqq"]},
    "a stop string that comes": {"stop": ["Z"]},
    "stop and logprobs": {"stop": ["zz", "never in it at all"], "logprobs": 2},
    "chat": {"chat": True},
    "chat with logprobs": {"chat": True, "logprobs": True, "top_logprobs": 2},
    "json": {"chat": True, "response_format": FORM},
    "json, two of them": {"chat": True, "response_format": FORM, "n": 2},
    "a function": {"chat": True, "tools": [TOOL], "tool_choice": "required"},
}
TOKENS = 160


async def all_of_them(fleet: Cluster) -> dict[str, Answer]:
    answers = await asyncio.gather(
        *(ask(fleet.url(), name, TOKENS, seed=11, **params) for name, params in ASKED.items())
    )
    return dict(zip(ASKED, answers, strict=True))


def seen(answer: Answer) -> dict[str, Any]:
    """What a client has of it, but for the name and the times."""
    return {
        "events": sorted((event.choice, n, _own_mark(event), event.text) for n, event in _by_choice(answer)),
        "finishes": sorted(answer.finishes),
        "usage": answer.usage,
        "logprobs": sorted(map(repr, answer.logprobs)),
        "calls": _without_ids(answer.tool_calls),
        "errors": answer.errors,
        "dones": answer.dones,
    }


def _by_choice(answer: Answer) -> list[tuple[int, Event]]:
    """Number each choice's events; between choices there is no order."""
    counts: Counter[int] = Counter()
    numbered = []
    for event in answer.events:
        numbered.append((counts[event.choice], event))
        counts[event.choice] += 1
    return numbered


def _own_mark(event: Event) -> str:
    """Say where an event puts its own choice; an event's id says it of all of them."""
    return event.id.rpartition(":")[2].split(",")[event.choice]


def _without_ids(calls: list[Any]) -> list[Any]:
    return [[{key: value for key, value in one.items() if key != "id"} for one in call] for call in calls]


@pytest.mark.long
async def test_all_that_can_be_asked_for_goes_on_identically_when_its_decode_is_killed(tmp_path: Path) -> None:
    async with cluster(tmp_path, decodes=1, options={"max_num_seqs": 32}) as fleet:
        reference = await all_of_them(fleet)
        assert [name for name, answer in reference.items() if not answer.whole] == []
        again = await all_of_them(fleet)
        assert {name: seen(answer) for name, answer in again.items()} == {
            name: seen(answer) for name, answer in reference.items()
        }, "the reference itself must stand"
        await joined(fleet, Role.DECODE, "decode-2")
        for step, survivor in ((2, "decode-1"), (25, "decode-1"), (70, "decode-1")):
            victim = f"decode-at-{step}"
            await joined(fleet, Role.DECODE, victim, failpoints=f"decode.step=kill@{step}")
            answers = await all_of_them(fleet)
            assert await fleet.processes[victim].ended() == -9
            assert fleet.processes[survivor].alive
            for name, answer in answers.items():
                assert seen(answer) == seen(reference[name]), name
        await fleet.quiet()
