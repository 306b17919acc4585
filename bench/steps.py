"""What a decoding step costs against the batch, the context, and the sequences that have come and gone before it.

`curves()` is what a picture is made of: {engine: {axis: [(x, milliseconds of the best step), ...]}}, where the engine
is `torch` (on the CPU, a Llama of 4 layers and 256 wide with a vocabulary of 32,000, random weights in bfloat16) or
`sim` (no model: what scheduling alone costs), and the axis is `batch` (sequences, of 128 tokens each), `context`
(tokens, of 16 sequences each) or `finished` (sequences that ended before, at a batch of 16 of 128 tokens). The best of
some steps counts, since machines are shared.

    python -m bench.steps --json curves.json
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

# before anything that imports torch: the engine's package sets how torch's threads wait
from shared.engine.torch_engine.options import read_options  # isort: skip

import torch
import transformers

from bench.engine_steps import insert, measure
from bench.table import Row
from shared.engine import Sequence
from shared.engine.sim_engine.engine import SimEngine
from shared.engine.torch_engine.runner import Runner
from shared.messages import Sampling, Stopping
from shared.models import resolve

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS: Final = (64, 256, 1024, 2048, 4096, 8192)
FINISHED: Final = (0, 50, 500, 5000)
BATCH: Final = 16
CONTEXT: Final = 128
STEPS: Final = 20
GREEDY: Final = Sampling(temperature=0.0)
Points = list[tuple[int, float]]
Curves = dict[str, dict[str, Points]]


def make_model(directory: Path) -> None:
    """Write the model."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32_000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=16_384,
    )
    transformers.utils.logging.disable_progress_bar()
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)


class TorchSteps:
    """The torch engine's inside, without a loop."""

    def __init__(self, directory: Path) -> None:
        options = {"dtype": "bfloat16", "kv_cache_mb": 1024, "max_num_seqs": max(BATCHES)}
        self._runner = Runner(directory, read_options(options), frozenset())

    def step_ms(self, batch: int, context: int) -> float:
        """The best step of such a batch."""
        insert(self._runner, batch, context, GREEDY)
        best = measure(self._runner, STEPS).best
        for row in range(batch):
            self._runner.release(f"{batch}-{row}")
        return best * 1e3

    def finish(self, number: int) -> None:
        """Let so many sequences come, draw one token and end."""
        stopping = Stopping(max_tokens=1, ignore_eos=True)
        buffer = memoryview(bytearray(self._runner.info.kv_bytes(CONTEXT - 1)))
        for start in range(0, number, BATCH):
            for one in range(start, min(start + BATCH, number)):
                sequence = Sequence(f"brief {one}", [5] * CONTEXT, CONTEXT, GREEDY, stopping)
                self._runner.insert(sequence, CONTEXT - 1, buffer)
            while not self._runner.idle:
                self._runner.step()


class SimSteps:
    """The sim engine, as fast as it goes."""

    def __init__(self) -> None:
        options = {"decode_step_ms": 0, "prefill_ms": [0, 0, 0], "max_num_seqs": max(BATCHES), "kv_bytes_per_token": 8}
        self._engine = SimEngine(resolve("gemma-3-270m", "sim", {}), options)
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._engine.start())

    def step_ms(self, batch: int, context: int) -> float:
        """The best step of such a batch."""
        return self._loop.run_until_complete(self._step_ms(batch, context))

    def finish(self, number: int) -> None:
        """Let so many sequences come, draw one token and end."""
        for start in range(0, number, BATCH):
            self._loop.run_until_complete(self._finish(min(BATCH, number - start)))

    def close(self) -> None:
        """End the engine and its loop."""
        self._loop.run_until_complete(self._engine.close())
        self._loop.close()

    async def _step_ms(self, batch: int, context: int) -> float:
        for row in range(batch):
            await self._begin(str(row), context, STEPS + 2)
        times = [time.perf_counter()]
        async for step in self._engine.steps():
            times.append(time.perf_counter())
            if len(times) == STEPS or not step.sampled:
                break
        for row in range(batch):
            await self._engine.release(str(row))
        return min(after - before for before, after in pairwise(times)) * 1e3

    async def _finish(self, number: int) -> None:
        for one in range(number):
            await self._begin(f"brief {one}", CONTEXT, 2)
        async for step in self._engine.steps():
            number -= sum(sampled.finish is not None for sampled in step.sampled)
            if not number:
                return

    async def _begin(self, key: str, context: int, tokens: int) -> None:
        """A prompt goes the whole way into the batch."""
        stopping = Stopping(max_tokens=tokens, ignore_eos=True)
        prompt = [5 + n % 90 for n in range(context)]
        buffer = memoryview(bytearray(self._engine.info.kv_bytes(context)))
        first = await self._engine.prefill(Sequence(key, prompt, context, GREEDY, stopping), buffer)
        await self._engine.exported(key)
        await self._engine.release(key)
        await self._engine.insert(
            Sequence(key, [*prompt, first.first.token_id], context, GREEDY, stopping), context, buffer
        )


def curves() -> Curves:
    """See the module's head. About two minutes on two cores."""
    sim = SimSteps()
    with tempfile.TemporaryDirectory() as directory:
        make_model(Path(directory))
        result = {"torch": _curves_of(TorchSteps(Path(directory))), "sim": _curves_of(sim)}
    sim.close()
    return result


def _curves_of(engine: TorchSteps | SimSteps) -> dict[str, Points]:
    gone = 0
    finished = []
    for number in FINISHED:
        engine.finish(number - gone)
        gone = number
        finished.append((number, engine.step_ms(BATCH, CONTEXT)))
    return {
        "batch": [(batch, engine.step_ms(batch, CONTEXT)) for batch in BATCHES],
        "context": [(context, engine.step_ms(BATCH, context)) for context in CONTEXTS],
        "finished": finished,
    }


def rows() -> list[Row]:
    """The table's rows; less is better."""
    return list(_rows(curves()))


def _rows(measured: Curves) -> Iterator[Row]:
    words = {"batch": "{} sequences", "context": f"{BATCH} sequences of {{}} tokens", "finished": "after {} finished"}
    for engine, axes in measured.items():
        for axis, points in axes.items():
            least, base = points[0]
            name = words[axis].format(f"{least:,}")
            for x, value in points[1:]:
                yield Row(f"{engine} step, {words[axis].format(f'{x:,}')}", value, "ms", name, base)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the curves go")
    parser.parse_args().json.write_text(json.dumps(curves(), indent=1))
