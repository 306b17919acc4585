"""Texts through a whole cluster with vLLM in it: those of one vLLM alone, and those of the torch engine."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.client import ask
from tests.vllm.asks import ASKS, prompts_of, texts_of
from tests.vllm.house import VLLM, VllmCluster
from tests.vllm.parity import ASKED, Parity, parity

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400), pytest.mark.asyncio(loop_scope="session")]

BLOCK = VLLM["block_size"]
NEAR = 2e-3
"""Between the logprobs of two engines that add in different orders, in float32."""


async def test_sixteen_streams_at_once_bring_the_texts_of_one_vllm_alone(
    fleet: VllmCluster, tiny_llama: Path, alone: dict[str, str]
) -> None:
    prompts = prompts_of(tiny_llama / "tokenizer.json")
    assert await texts_of(fleet.url(), prompts) == alone
    await fleet.quiet()


async def test_prompts_that_both_sides_have_cached_bring_the_same_texts(
    fleet: VllmCluster, tiny_llama: Path, alone: dict[str, str]
) -> None:
    prompts = prompts_of(tiny_llama / "tokenizer.json")
    _ = await texts_of(fleet.url(), prompts)
    asked = (
        ask(fleet.url(), prompt, count, seed=1, temperature=0.0, ignore_eos=True) for prompt, count in prompts.values()
    )
    answers = dict(zip(prompts, await asyncio.gather(*asked), strict=True))
    assert {name: answer.text for name, answer in answers.items()} == alone
    for name, (tokens, _) in ASKS.items():
        usage = answers[name].usage
        assert usage is not None
        assert usage["prompt_tokens_details"]["cached_tokens"] == (tokens - 1) // BLOCK * BLOCK, name
    await fleet.quiet()


@pytest.fixture(scope="module")
def answers() -> dict[str, Parity]:
    """Asked once for all of the tests below."""
    return {}


@pytest.mark.parametrize("name", ASKED)
async def test_whatever_is_asked_for_is_answered_as_the_torch_engine_answers_it(
    name: str, fleet: VllmCluster, torch_answers: Parity, answers: dict[str, Parity]
) -> None:
    if not answers:
        answers["vllm"] = await parity(fleet.url())
    found = answers["vllm"]
    assert found.essences[name] == torch_answers.essences[name]
    assert found.essences[name].errors == []
    assert found.logprobs.get(name, []) == pytest.approx(torch_answers.logprobs.get(name, []), abs=NEAR)


async def test_a_prompt_that_goes_on_with_an_answer_is_answered_alike(
    fleet: VllmCluster, torch_answers: Parity, answers: dict[str, Parity]
) -> None:
    if not answers:
        answers["vllm"] = await parity(fleet.url())
    assert answers["vllm"].second == torch_answers.second
    await fleet.quiet()
