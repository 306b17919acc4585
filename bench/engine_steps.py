"""What one step of the torch engine costs when it decodes, against the time in which its weights can be read.

Drives the engine's inside, without a loop, a network or a tokenizer: sequences of random tokens with a KV cache of
zeros, one token each per step. Prints per number of rows and context the best and median step, the processor time, the
ideal (bytes of weights and KV that a step must read / the memory's read bandwidth, measured in the same run with the
same threads) and how many times the ideal the best step takes. `--profile` prints torch's account of the steps instead.

    python -m bench.engine_steps --model gemma-3-270m --dtype bfloat16 --quantization none --rows 1 16 64
"""

import argparse
import math
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# before anything that imports torch: the engine's package sets how torch's threads wait
from shared.engine.torch_engine.options import EngineOptions, read_options  # isort: skip

import torch
from safetensors import safe_open
from torch.profiler import ProfilerActivity, profile

from shared.engine import Sequence
from shared.engine.torch_engine.runner import Runner
from shared.messages import Sampling, Stopping
from shared.models import resolve

WARM: Final = 5
PROBE_BYTES: Final = 512 << 20
BITS: Final = {"int8": 8, "int4": 4}
DTYPE_BITS: Final = {"bfloat16": 16, "float16": 16}
FOREVER: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds per step."""

    best: float
    median: float
    processor: float  # of all threads, median


def bandwidth(device: torch.device) -> float:
    """Bytes per second that the device reads, the best of some passes over more than a cache holds."""
    numbers = torch.ones(PROBE_BYTES // 4, device=device)
    best = math.inf
    for _ in range(7):
        began = time.perf_counter()
        numbers.sum().item()
        best = min(best, time.perf_counter() - began)
    return PROBE_BYTES / best


def weight_bytes(directory: Path, bits: int, head_bits: int) -> float:
    """What a step reads of the weights. Of an embedding that is not the head too it reads next to nothing."""
    total = 0.0
    names: dict[str, int] = {}
    for file in directory.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names |= {name: torch.Size(opened.get_slice(name).get_shape()).numel() for name in opened.keys()}  # noqa: SIM118
    embedding = next(name for name in names if name.endswith("embed_tokens.weight"))
    head = next((name for name in names if name.endswith("lm_head.weight")), embedding)
    for name, numbers in names.items():
        if name == head:
            total += numbers * head_bits / 8
        elif name != embedding:
            total += numbers * bits / 8
    return total


def insert(runner: Runner, rows: int, context: int, sampling: Sampling) -> None:
    """Have the runner decode so many sequences of so many tokens each."""
    numbers = random.Random(rows)  # noqa: S311  no secret
    stopping = Stopping(max_tokens=FOREVER, ignore_eos=True)
    for row in range(rows):
        tokens = [numbers.randrange(1000, 30_000) for _ in range(context)]
        buffer = memoryview(bytearray(runner.info.kv_bytes(context - 1)))
        runner.insert(Sequence(f"{rows}-{row}", tokens, context, sampling, stopping), context - 1, buffer)


def measure(runner: Runner, steps: int) -> Measured:
    """Step so often."""
    for _ in range(WARM):
        runner.step()
    times, processor = [], []
    for _ in range(steps):
        began, burnt = time.perf_counter(), time.process_time()
        runner.step()
        times.append(time.perf_counter() - began)
        processor.append(time.process_time() - burnt)
    return Measured(min(times), statistics.median(times), statistics.median(processor))


def account(runner: Runner, steps: int, limit: int) -> str:
    """Say where torch spends so many steps."""
    for _ in range(WARM):
        runner.step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            runner.step()
    averages = seen.key_averages()
    table: str = averages.table(sort_by="self_cpu_time_total", row_limit=limit, max_name_column_width=48)
    return f"{table}\n{sum(event.count for event in averages) / steps:.0f} operations per step"


def options_of(args: argparse.Namespace) -> EngineOptions:
    """The engine's options, with room for the greatest of the batches."""
    given: dict[str, Any] = {
        "device": args.device,
        "dtype": args.dtype,
        "quantization": args.quantization,
        "threads": args.threads,
        "max_num_seqs": max(args.rows),
        "kv_cache_mb": args.kv_cache_mb,
    }
    return read_options(given)


def main() -> None:
    """Measure and print."""
    args = _arguments()
    path = resolve(args.model, "torch", {}).path
    if path is None:
        raise RuntimeError(f"{args.model} has no files")
    options = options_of(args)
    runner = Runner(path, options, frozenset())
    if args.profile:
        insert(runner, args.rows[0], args.context[0], Sampling(temperature=args.temperature, top_p=args.top_p))
        print(account(runner, args.steps, args.profile))
        return
    dtype = "float32" if options.dtype == "auto" and options.device == "cpu" else options.dtype
    width = DTYPE_BITS.get(dtype, 32)
    bits = BITS.get(options.quantization, width)
    read = weight_bytes(path, bits, max(bits, 8))
    speed = bandwidth(torch.device(options.device))
    print(f"{path.name}, {dtype}, {options.quantization}, {torch.get_num_threads()} threads; ", end="")
    print(f"weights {read / 1e6:.0f} MB, memory reads {speed / 1e9:.1f} GB/s")
    print("rows  context   best ms   median  processor    ideal   ratio   tokens/s")
    for rows in args.rows:
        for context in args.context:
            insert(runner, rows, context, Sampling(temperature=args.temperature, top_p=args.top_p))
            got = measure(runner, args.steps)
            ideal = (read + rows * runner.info.kv_bytes(context)) / speed
            print(
                f"{rows:4d} {context:8d} {got.best * 1e3:9.2f} {got.median * 1e3:8.2f} {got.processor * 1e3:10.2f}",
                end="",
            )
            print(f" {ideal * 1e3:8.2f} {got.best / ideal:7.2f} {rows / got.median:10.1f}", flush=True)
            for row in range(rows):
                runner.release(f"{rows}-{row}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m", help="a name Baton knows, or a directory")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--context", type=int, nargs="+", default=[128])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kv-cache-mb", type=int, default=1024)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--profile", type=int, default=0, metavar="LINES", help="the first rows and context only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
