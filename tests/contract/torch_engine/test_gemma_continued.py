"""The real Gemma 3 270M in float32, killed: a text continued elsewhere is the text, token for token and bit for bit.

The undisturbed texts are decoded together. Each is then continued by another pair of engines, which cuts prompts
otherwise, from the prompt and its first tokens, as if it had been killed there; all the continuations together.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.engine import Alternatives, Sequence
from shared.engine.torch_engine.device import resolve as device_of
from shared.engine.torch_engine.engine import TorchEngine
from shared.engine.torch_engine.steady import NONE, fewest_rows
from shared.messages import Stopping
from tests.torch_rig import buffer_for, sequence

STEADY = device_of("cpu").packs and fewest_rows(256) != NONE
pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not STEADY, reason="torch without oneDNN, or a processor without AVX-512"),
]

NEW = 48
KILLED_AT = (1, 2, 7, 16, 31, 47)
OPTIONS: dict[str, Any] = {"kv_cache_mb": 512, "max_num_seqs": 32}
MANNERS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "top_p": 0.95},
    "penalised": {
        "temperature": 1.0,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "min_p": 0.01,
    },
}
BEGINNINGS = {
    "short": "Once upon a time",
    "list": "The three primary colours are",
    "code": "def add(a, b):\n    return a + b\n\ndef multiply(a, b):\n",
    "page": "The harbour town of Kessel had three clocks, and no two of them agreed. " * 9,
    "past the window": "A traveller who asked for the hour was told to choose one of the clocks. " * 36,
}

Text = list[tuple[int, Alternatives | None]]
Asked = dict[str, tuple[list[int], int]]  # the tokens to start from, and how many of them are the client's prompt


@pytest.fixture(scope="module")
def prompts(directory: Path) -> dict[str, list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return {name: tokenizer.encode(text).ids for name, text in BEGINNINGS.items()}


@pytest.fixture
async def pairs(directory: Path) -> AsyncIterator[list[tuple[TorchEngine, TorchEngine]]]:
    """Two pairs of a prefill and a decode engine; the second cuts prompts otherwise and keeps no prefix."""
    other = {**OPTIONS, "prefill_chunk": 100, "enable_prefix_cache": False}
    engines = [TorchEngine(directory, options) for options in (OPTIONS, OPTIONS, other, other)]
    for engine in engines:
        await engine.start()
    yield [(engines[0], engines[1]), (engines[2], engines[3])]
    for engine in engines:
        load = engine.load()
        await engine.close()
        assert (load.sequences, load.free_blocks) == (0, engine.info.blocks)


async def written(pair: tuple[TorchEngine, TorchEngine], asked: Asked, manner: dict[str, Any]) -> dict[str, Text]:
    """All the texts from where they start to their ends, decoded in one batch, with their log probabilities."""
    prefill, decode = pair

    def one(key: str, tokens: list[int], prompt_tokens: int) -> Sequence:
        chosen = {**manner, "seed": prompt_tokens, "logprobs": 3}
        return sequence(key, tokens, prompt_tokens, stopping=Stopping(max_tokens=NEW, ignore_eos=True), **chosen)

    async def begin(key: str, tokens: list[int], prompt_tokens: int) -> Text:
        buffer = buffer_for(prefill.info, len(tokens))
        first = (await prefill.prefill(one(key, tokens, prompt_tokens), buffer)).first
        await prefill.exported(key)
        await prefill.release(key)
        if first.finish is None:
            await decode.insert(one(key, [*tokens, first.token_id], prompt_tokens), len(tokens), buffer)
            left.add(key)
        return [(first.token_id, first.alternatives)]

    left: set[str] = set()
    begun = await asyncio.gather(*(begin(key, *start) for key, start in asked.items()))
    texts = dict(zip(asked, begun, strict=True))
    steps = decode.steps()
    while left:
        step = await anext(steps)
        assert not step.failed
        for sampled in step.sampled:
            texts[sampled.key].append((sampled.token_id, sampled.alternatives))
            if sampled.finish is not None:
                left.remove(sampled.key)
    return texts


@pytest.mark.long
@pytest.mark.parametrize("manner", list(MANNERS))
async def test_killed_at_any_token_it_goes_on_bit_for_bit(
    pairs: list[tuple[TorchEngine, TorchEngine]], prompts: dict[str, list[int]], manner: str
) -> None:
    undisturbed, elsewhere = pairs
    asked = {name: (tokens, len(tokens)) for name, tokens in prompts.items()}
    whole = await written(undisturbed, asked, MANNERS[manner])
    killed: Asked = {}
    for name, tokens in prompts.items():
        assert len(whole[name]) == NEW
        for at in KILLED_AT:
            killed[f"{name}, killed at {at}"] = ([*tokens, *(token for token, _ in whole[name][:at])], len(tokens))
    rest = await written(elsewhere, killed, MANNERS[manner])
    for name in prompts:
        for at in KILLED_AT:
            assert rest[f"{name}, killed at {at}"] == whole[name][at:], (name, at)
