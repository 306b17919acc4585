"""Tokens per second of the torch engine at 1, 16 and 64 streams, against transformers' `generate` in the same run.

Both read the same weights in one dtype and make the same number of greedy tokens from the same prompts, prompt included
in the time. The engine goes the whole way of the product: prefill, KV export, KV import, decode. transformers gets all
prompts as one batch of equal lengths, which is its best case. The best of the rounds counts, since machines are shared.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

# before anything that imports torch: the engine's package sets how torch's threads wait, and both sides profit
from shared.engine.torch_engine.engine import TorchEngine  # isort: skip

import torch
import transformers

from bench.table import Row
from shared.engine import Sequence
from shared.messages import Sampling, Stopping
from shared.models import resolve

STREAMS = (1, 16, 64)
PROMPT = 32
NEW = 64
ROUNDS = 2


def prompts(streams: int) -> list[list[int]]:
    """Different prompts of equal length."""
    generator = torch.Generator().manual_seed(streams)
    return [[2, *torch.randint(1000, 100_000, (PROMPT - 1,), generator=generator).tolist()] for _ in range(streams)]


async def ours(engine: TorchEngine, streams: int) -> float:
    """Seconds until the last token of the last stream."""
    sampling, stopping = Sampling(temperature=0.0), Stopping(max_tokens=NEW, ignore_eos=True)

    async def begin(key: str, tokens: list[int]) -> None:
        buffer = memoryview(bytearray(engine.info.kv_bytes(PROMPT)))
        first = await engine.prefill(Sequence(key, tokens, PROMPT, sampling, stopping), buffer)
        await engine.exported(key)
        await engine.release(key)
        continued = [*tokens, first.first.token_id]
        await engine.insert(Sequence(key, continued, PROMPT, sampling, stopping), PROMPT, buffer)

    async def read() -> None:
        left = streams
        async for step in engine.steps():
            left -= sum(sampled.finish is not None for sampled in step.sampled)
            if not left:
                return

    start = time.perf_counter()
    await asyncio.gather(read(), *(begin(str(n), tokens) for n, tokens in enumerate(prompts(streams))))
    return time.perf_counter() - start


def theirs(model: transformers.PreTrainedModel, streams: int) -> float:
    """Seconds that `generate` takes for the same tokens."""
    given = torch.tensor(prompts(streams), device=model.device)
    mask = torch.ones_like(given)
    start = time.perf_counter()
    model.generate(given, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    return time.perf_counter() - start


async def measure(directory: Path, device: str, dtype: str) -> list[tuple[int, float, float]]:
    """Per number of streams: best seconds of ours and of theirs, in alternating rounds."""
    where = {"device": device, "dtype": dtype}
    options = {"max_num_seqs": max(STREAMS), "kv_cache_mb": 1024, "enable_prefix_cache": False, **where}
    engine = TorchEngine(directory, options)
    await engine.start()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval().to(device)
    result = []
    for streams in STREAMS:
        pairs = [(await ours(engine, streams), theirs(model, streams)) for _ in range(ROUNDS)]
        result.append((streams, min(a for a, _ in pairs), min(b for _, b in pairs)))
    await engine.close()
    return result


def rows(model: str = "gemma-3-270m", device: str = "cpu", dtype: str = "float32") -> list[Row]:
    """The table's rows; more is better."""
    path = resolve(model, "torch", {}).path
    if path is None:
        raise RuntimeError(f"{model} has no files")
    return list(_rows(asyncio.run(measure(path, device, dtype))))


def _rows(measured: list[tuple[int, float, float]]) -> Iterator[Row]:
    for streams, mine, baseline in measured:
        tokens = streams * NEW
        name = f"torch engine, {streams} stream{'s' * (streams > 1)}"
        yield Row(name, tokens / mine, "tokens/s", "transformers generate", tokens / baseline)


if __name__ == "__main__":
    import argparse

    from bench.table import render

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gemma-3-270m", help="a name Baton knows, or a directory")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    print(render(rows(**vars(parser.parse_args()))))
