"""What a client asks for, in the workers' words: tokens, Sampling and Stopping of each choice.

Pure but for the seed that is drawn where the client gave none. Knows no connection and no worker.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.parameters import MAX_CHOICES, Parameters
from services.gateway.prompts.chats import calling_of, constraint_of, described, variables
from services.gateway.prompts.prompter import Prompter
from shared.errors import BadRequest, TooLarge
from shared.messages import Constraint, Sampling, Stopping, pack_tokens

MAX_PARAMETER_BYTES = 96 * 1024
"""Of stop strings, stop tokens, biases and grammar together: they travel with the prompt in one message."""
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """One choice. `first_of_prompt`: the prompt is counted with this one."""

    prompt: bytes
    sampling: Sampling
    stopping: Stopping
    first_of_prompt: bool


async def plan(asked: ChatRequest | CompletionRequest, prompter: Prompter) -> list[Plan]:
    """Tokenise what is asked and spread it over its choices. Raises BadRequest, ContextTooLong."""
    if isinstance(asked, ChatRequest):
        return await plan_chat(asked, prompter)
    return await plan_completion(asked, prompter)


def sizes_of(plans: list[Plan]) -> tuple[int, int]:
    """Add up tokens: of the prompts, each once, and of what may be generated at most."""
    prompt = sum(len(plan.prompt) // 4 for plan in plans if plan.first_of_prompt)
    return prompt, sum(plan.stopping.max_tokens for plan in plans)


async def plan_chat(request: ChatRequest, prompter: Prompter) -> list[Plan]:
    """Tokenise the conversation and spread it over n choices. Raises BadRequest, ContextTooLong."""
    constraint = await constraint_of(request, prompter)
    tokens = await prompter.chat(
        request.messages,
        variables(request, prompter.template),
        tools=described(request),
        continued=bool(request.continue_final_message),
    )
    alternatives = (request.top_logprobs or 0) if request.logprobs else None
    # a model without a token to end a turn would go on and speak for the user too
    return _spread(
        request,
        prompter,
        [tokens],
        request.bound,
        alternatives,
        stop=prompter.spec.default_stop,
        shown=prompter.form.shown if calling_of(request, prompter.form) else [],
        constraint=constraint,
    )


async def plan_completion(request: CompletionRequest, prompter: Prompter) -> list[Plan]:
    """Tokenise every prompt and spread each over n choices. Raises BadRequest, ContextTooLong."""
    prompts = request.prompts()
    if len(prompts) * request.choices > MAX_CHOICES:
        raise BadRequest(f"at most {MAX_CHOICES} choices in one request: prompts times n, or best_of", "n")
    tokens = []
    for prompt in prompts:
        tokens.append(await prompter.text(prompt))
        await asyncio.sleep(0)  # the streams have their turn: many short texts are one long one
    compared = request.choices > (request.n or 1)  # by their logprobs
    alternatives = 0 if compared and request.logprobs is None else request.logprobs
    constraint = await constraint_of(request, prompter)
    return _spread(request, prompter, tokens, request.max_tokens, alternatives, constraint=constraint)


def _spread(
    request: Parameters,
    prompter: Prompter,
    prompts: list[list[int]],
    wanted: int | None,
    alternatives: int | None,
    *,
    stop: tuple[str, ...] = (),
    shown: Sequence[int] = (),
    constraint: Constraint | None = None,
) -> list[Plan]:
    param = "messages" if isinstance(request, ChatRequest) else "prompt"
    seed = secrets.randbits(63) if request.seed is None else request.seed
    plans = []
    for tokens in prompts:
        stopping = _stopping(request, prompter.room(len(tokens), wanted, param), stop, shown)
        packed = pack_tokens(tokens)
        for choice in range(request.choices):
            sampling = _sampling(request, prompter, constraint, seed=seed, choice=choice, logprobs=alternatives)
            plans.append(Plan(packed, sampling, stopping, first_of_prompt=choice == 0))
    size = len(msgspec.msgpack.encode((plans[0].sampling, plans[0].stopping)))
    if size > MAX_PARAMETER_BYTES:
        what = "stop, stop_token_ids, logit_bias and the grammar of the answer"
        raise TooLarge(f"{what} take {size} bytes; the limit is {MAX_PARAMETER_BYTES}")
    return plans


def _stopping(request: Parameters, max_tokens: int, more: tuple[str, ...], shown: Sequence[int]) -> Stopping:
    if (request.min_tokens or 0) > max_tokens:
        raise BadRequest(f"min_tokens is greater than the {max_tokens} tokens that may be generated", "min_tokens")
    stop = [request.stop] if isinstance(request.stop, str) else (request.stop or [])
    return Stopping(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        stop=[*stop, *(one for one in more if one not in stop)],
        stop_token_ids=request.stop_token_ids or [],
        ignore_eos=bool(request.ignore_eos),
        shown_token_ids=list(shown),
    )


def _sampling(request: Parameters, prompter: Prompter, constraint: Constraint | None, **fixed: int | None) -> Sampling:
    """Take what the client says, else what the model's own configuration says, else OpenAI's defaults."""
    bias, vocabulary = request.logit_bias or {}, prompter.tokenizer.vocabulary
    if bias and max(bias) >= vocabulary:
        raise BadRequest(f"token {max(bias)} is not in the vocabulary of {vocabulary} tokens", "logit_bias")
    said: dict[str, Any] = {**prompter.spec.sampling}
    said |= {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
    said["top_k"] = max(0, int(said.get("top_k", 0)))  # -1 is how some clients say "off"
    return Sampling(**said, **fixed, logit_bias=bias, constraint=constraint)  # type: ignore[arg-type]  # names are Sampling's own
