"""What the clusters are asked: greedy prompts around the edges of KV blocks, with answers of different lengths."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from openai import OpenAI

TEXT: Final = (
    "The harbour town of Kessel had three clocks, and no two of them agreed; strangers set their watches by the tide. "
)
ASKS: Final[dict[str, tuple[int, int]]] = {
    "one token": (1, 40),
    "two": (2, 1),
    "below a block": (31, 24),
    "a block": (32, 33),
    "above a block": (33, 64),
    "two blocks but one": (63, 2),
    "two blocks": (64, 96),
    "two blocks and one": (65, 48),
    "below four": (127, 17),
    "four": (128, 160),
    "above four": (129, 31),
    "a few hundred": (300, 200),
    "more": (511, 65),
    "more than a step takes": (700, 120),
    "long": (1000, 80),
    "the longest": (1500, 300),
}
"""Tokens of the prompt and of the answer."""
HANGS_S: Final = 240.0


def prompts_of(tokenizer_file: Path) -> dict[str, tuple[str, int]]:
    """The prompts' texts, each of exactly so many tokens, with the answers' lengths."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    prompts = {}
    for number, (name, (tokens, count)) in enumerate(ASKS.items()):
        text = f"{number}".join(TEXT[number:].split("o")) * 40
        end = next(end for end in range(len(text)) if len(tokenizer.encode(text[:end]).ids) >= tokens)
        ids = tokenizer.encode(text[:end]).ids
        assert len(ids) == tokens, (name, len(ids))
        prompts[name] = (text[:end], count)
    return prompts


async def texts_of(url: str, prompts: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """The greedy texts, all streamed at once through OpenAI's client, a thread for each that ends with it."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(prompts)) as threads:
        texts = await asyncio.gather(*(loop.run_in_executor(threads, _text, url, *ask) for ask in prompts.values()))
    return dict(zip(prompts, texts, strict=True))


def _text(url: str, prompt: str, count: int) -> str:
    text, used, finish = "", 0, None
    with OpenAI(base_url=f"{url}/v1", api_key="none", timeout=HANGS_S, max_retries=0) as client:
        chunks = client.completions.create(
            model="chat",
            prompt=prompt,
            max_tokens=count,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        for chunk in chunks:
            used = chunk.usage.completion_tokens if chunk.usage else used
            for choice in chunk.choices:
                text += choice.text
                finish = choice.finish_reason or finish
    assert (finish, used) == ("length", count)
    return text
