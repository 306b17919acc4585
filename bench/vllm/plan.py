"""What is measured, and of what: sizes, the model's files, the prompts. Starts nothing."""

import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

WORDS: Final = (
    "harbour",
    "clock",
    "town",
    "tide",
    "watch",
    "three",
    "relay",
    "baton",
    "run",
    "light",
    "never",
    "glass",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    model: str = "tiny"
    dtype: str = "bfloat16"
    streams: Sequence[int] = (1, 16, 64, 256)
    prompt: int = 64
    answer: int = 64
    threads: int = 0  # of each engine process; 0: what each takes by itself
    kv_cache_mb: int = 1024
    turns: int = 2
    waves: int = 2
    servers: Sequence[str] = ("vllm", "baton on vllm", "baton on torch")
    least_requests: int = 8
    context: int = 2048
    llama_python: str = sys.executable  # an interpreter that has llama_cpp
    json: str = ""  # a file for the figures

    @property
    def most(self) -> int:
        """Sequences that an engine may run at once."""
        return max(self.streams)

    def said(self) -> dict[str, Any]:
        """What was measured, without where things lie on this machine."""
        return {key: value for key, value in asdict(self).items() if key not in ("json", "llama_python")}

    @property
    def cores(self) -> int:
        """What all of it has to share."""
        return len(os.sched_getaffinity(0))


def read_model(plan: Plan, folder: Path) -> Path:
    """The model's directory; the random ones are made."""
    if plan.model == "tiny":
        from tests.vllm.tiny_llama import make_tiny_llama  # noqa: PLC0415  transformers takes seconds

        return make_tiny_llama(folder / "tiny", plan.dtype)
    if plan.model == "small":
        from bench.vllm.small_llama import make_small_llama  # noqa: PLC0415

        return make_small_llama(folder / "small", plan.dtype)
    from shared.models.resolving import find  # noqa: PLC0415

    return find(plan.model)


@cache
def _tokenizer(file: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from tokenizers import Tokenizer  # noqa: PLC0415

    return Tokenizer.from_file(str(file))


def prompts(model: Path, tokens: int, count: int, seed: str) -> list[str]:
    """Texts of that many tokens, as near as words go from below; each begins in its own way."""
    tokenizer = _tokenizer(model / "tokenizer.json")
    source = random.Random(seed)  # noqa: S311  no secret
    texts = []
    for number in range(count):
        text = f"{seed} {number}"
        while len(tokenizer.encode(longer := f"{text} {source.choice(WORDS)}").ids) <= tokens:
            text = longer
        while len(tokenizer.encode(longer := f"{text}.").ids) <= tokens:
            text = longer
        texts.append(text)
    return texts
