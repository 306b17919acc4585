"""From a request to its scenario, where its `model` is a name that several scenarios share.

Owns the gathering of what rules look at: nothing is tokenised or read that none of them asks for.
"""

from typing import Final

from services.gateway.answers.forms import Asked
from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.responses import ResponsesRequest, in_its_words
from services.gateway.prompts.chats import described
from services.gateway.prompts.prompter import Prompter
from services.gateway.prompts.rules import READ_CHARS, Facts
from services.gateway.prompts.scenarios import Scenario, not_served
from shared.errors import ContextTooLong

BEYOND: Final = 1 << 40
"""Tokens of a prompt that is too long to be counted."""


def counts(sharing: list[Scenario]) -> bool:
    """Whether choosing among these scenarios takes the prompt's tokens."""
    return any(scenario.rules.counts for scenario in sharing)


async def choose(sharing: list[Scenario], asked: Asked, tenant: str) -> Scenario:
    """Choose the first whose rules hold, else the first without rules. Raises UnknownScenario, BadRequest.

    `sharing`: the scenarios of one name, in the order of the configuration; at least one.
    """
    facts = Facts()
    if any(scenario.rules.any for scenario in sharing):
        if isinstance(asked, ResponsesRequest):
            with in_its_words():
                facts = await _facts(sharing, asked.as_chat(), tenant)
        else:
            facts = await _facts(sharing, asked, tenant)
    problems = []
    for scenario in sharing:
        if scenario.rules.any:
            if not (problem := scenario.rules.why_not(facts)):
                return scenario
            problems.append(f"of '{scenario.name}' {problem}")
    for scenario in sharing:
        if not scenario.rules.any:
            return scenario
    raise not_served(asked.model or "", problems)


async def _facts(sharing: list[Scenario], asked: ChatRequest | CompletionRequest, tenant: str) -> Facts:
    prompter = sharing[0].prompter
    return Facts(
        prompt_tokens=await _tokens(asked, prompter) if counts(sharing) else 0,
        max_tokens=asked.bound,
        tools=isinstance(asked, ChatRequest) and bool(described(asked)),
        streamed=bool(asked.stream),
        tenant=tenant,
        text=await _text(asked, prompter) if any(scenario.rules.reads for scenario in sharing) else "",
    )


async def _tokens(asked: ChatRequest | CompletionRequest, prompter: Prompter) -> int:
    """Count the tokens of the longest prompt."""
    try:
        if isinstance(asked, ChatRequest):
            tools, continued = described(asked), bool(asked.continue_final_message)
            return len(
                await prompter.chat(asked.messages, asked.chat_template_kwargs, tools=tools, continued=continued)
            )
        return max([len(await prompter.text(prompt)) for prompt in asked.prompts()])
    except ContextTooLong:
        return BEYOND


async def _text(asked: ChatRequest | CompletionRequest, prompter: Prompter) -> str:
    if isinstance(asked, ChatRequest):
        return asked.messages[0].text
    first = asked.prompts()[0]
    return first if isinstance(first, str) else await prompter.words(first[:READ_CHARS], "prompt")
