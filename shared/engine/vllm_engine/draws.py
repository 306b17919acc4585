"""What our sampler, inside vLLM, is told of a request: a dict that goes with its SamplingParams. Imports no vLLM.

vLLM itself takes the likeliest of what the sampler leaves. A request for which that is right anyway is told nothing.
"""

from typing import Any, Final

import msgspec

from shared.engine import Sequence
from shared.engine.sampling.endings import ends_of
from shared.engine.sampling.penalties import penalises
from shared.engine.sampling.randomness import GREEDY_BELOW
from shared.messages import Sampling
from shared.text.tokenizer import Tokenizer

KEY: Final = "baton"
"""Of SamplingParams.extra_args."""
NEVER_UTF8: Final = frozenset(bytes([value]) for value in (0xC0, 0xC1, *range(0xF5, 0x100)))


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the tokens of one request are drawn."""

    key: str  # of the sequence, for messages
    sampling: Sampling
    prompt_tokens: int  # the client's; vLLM's prompt may hold generated tokens behind them
    ends: list[int]  # tokens that end the text
    min_tokens: int = 0  # generated, before which none of them may come
    stop: int | None = None  # what is drawn where the text must end at once; None: nothing ends it


def wanted(sequence: Sequence, eos_ids: frozenset[int], unsaid_id: int | None = None) -> dict[str, Any] | None:
    """What goes into extra_args[KEY]; None where the likeliest token is always the right one.

    `unsaid_id`: see `stop_token_ids`, which must be asked with the same.
    """
    sampling, stopping = sequence.sampling, sequence.stopping
    ends = sorted(ends_of(stopping, eos_ids))
    generated = len(sequence.tokens) - sequence.prompt_tokens
    plain = sampling.temperature < GREEDY_BELOW and not penalises(sampling) and not sampling.logit_bias
    if plain and sampling.constraint is None and not (ends and generated < stopping.min_tokens):
        return None
    stops = stop_token_ids(sequence, eos_ids, unsaid_id)
    told = Wanted(
        key=sequence.key,
        sampling=msgspec.structs.replace(sampling, logprobs=None),  # vLLM's business
        prompt_tokens=sequence.prompt_tokens,
        ends=ends,
        min_tokens=stopping.min_tokens,
        stop=stops[0] if stops else None,
    )
    made: dict[str, Any] = msgspec.to_builtins(told)
    return made


def stop_token_ids(sequence: Sequence, eos_ids: frozenset[int], unsaid_id: int | None = None) -> list[int]:
    """At which tokens vLLM must stop, sorted. Where a language may end the text there is at least one.

    Then it may be one that ends no text by itself: `unsaid_id`, else one of the model's ends, else 0. The sampler never
    draws it as a part of the text while another can come.
    """
    ends = sorted(ends_of(sequence.stopping, eos_ids))
    if ends or sequence.sampling.constraint is None:
        return ends
    if unsaid_id is not None:
        return [unsaid_id]
    return [min(eos_ids, default=0)]


def read_wanted(extra_args: dict[str, Any] | None, vocabulary: int) -> Wanted | None:
    """Of a request in vLLM's rank. Ends that no draw can bring are left out. Raises ValueError for what is no request.

    A token that the model has not would stop a device for good: a bias must be of one that it has.
    """
    told = (extra_args or {}).get(KEY)
    if told is None:
        return None
    found = msgspec.convert(told, Wanted)
    bias = found.sampling.logit_bias
    if bias and not 0 <= min(bias) <= max(bias) < vocabulary:
        raise ValueError(f"logit_bias must lie below the vocabulary's size, {vocabulary}")
    stop = found.stop
    return msgspec.structs.replace(
        found,
        ends=[token for token in found.ends if 0 <= token < vocabulary],
        stop=stop if stop is not None and 0 <= stop < vocabulary else None,
    )


def unsaid(tokenizer: Tokenizer, vocabulary: int) -> int:
    """The token below `vocabulary` that a text in a language misses least. Takes a moment for a large vocabulary.

    Best is one without bytes, then a special one, then a byte that no UTF-8 has, then one that others can spell.
    """
    best, merit = 0, -1
    for token in reversed(range(vocabulary)):
        raw = tokenizer.piece(token)[1]
        if not raw:
            return token
        found = 3 if not tokenizer.shown(token) else 2 if raw in NEVER_UTF8 else int(len(raw) > 1)
        if found > merit:
            best, merit = token, found
    return best
