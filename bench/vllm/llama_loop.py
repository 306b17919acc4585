"""llama.cpp's loop: a prompt, then greedy tokens one by one. Needs llama_cpp and nothing else.

Reads what to do as JSON from stdin, prints the best turn's figures as JSON.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import llama_cpp as llama


def quantized(file: str, as_format: str) -> str:
    """The file in that format, written beside it."""
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{as_format}")
    params.allow_requantize = True
    made = f"{file}.{as_format}"
    if llama.llama_model_quantize(file.encode(), made.encode(), params):
        raise RuntimeError(f"{file} cannot be written as {as_format}")
    return made


def opened(file: str, threads: int) -> Any:  # noqa: ANN401  ctypes
    """A context on the model."""
    model = llama.llama_model_load_from_file(file.encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 2048, threads, threads
    return llama.llama_init_from_model(model, params)


def turns(asked: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Seconds to the first token, and between tokens, of each turn."""
    file = quantized(asked["file"], asked["as_format"]) if asked["as_format"] else asked["file"]
    context = opened(file, asked["threads"])
    greedy = llama.llama_sampler_init_greedy()
    for turn in range(asked["turns"]):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        tokens = [2, *((1000 + 7919 * (turn * 1000 + place)) % 100_000 + 1000 for place in range(asked["prompt"] - 1))]
        start = time.perf_counter()
        token = _next(context, greedy, tokens)
        first = time.perf_counter()
        for _ in range(asked["answer"] - 1):
            token = _next(context, greedy, [token])
        yield first - start, (time.perf_counter() - first) / (asked["answer"] - 1)


def _next(context: Any, greedy: Any, tokens: list[int]) -> int:  # noqa: ANN401
    array = (llama.llama_token * len(tokens))(*tokens)  # the batch only points at it
    if llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens))):
        raise RuntimeError("llama.cpp does not decode")
    return int(llama.llama_sampler_sample(greedy, context, -1))


def main() -> None:
    """The best turn counts, as with the servers."""
    asked = json.load(sys.stdin)
    answer = asked["answer"]
    first, between = min(turns(asked), key=lambda times: times[0] + times[1] * (answer - 1))
    rate = answer / (first + between * (answer - 1))
    print(json.dumps({"tokens_s": rate, "first_ms": first * 1e3, "between_ms": between * 1e3}))


if __name__ == "__main__":
    main()
