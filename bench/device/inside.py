"""The engine by itself on its device: a decoding step at several batches, a prompt, and the roofs over both."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

# before anything that imports torch: the engine's package sets how its threads wait
from shared.engine.torch_engine.engine import TorchEngine  # isort: skip

import torch

from bench.device.plan import Plan
from shared.engine import Sequence
from shared.messages import Sampling, Stopping

GREEDY: Final = Sampling(temperature=0.0)
WARM_STEPS: Final = 12
PROMPTS: Final = 6
ROOF_TURNS: Final = 12
Figures = dict[str, Any]


def roofs(plan: Plan) -> Figures:
    """What the device copies and multiplies, best of some turns."""
    large = plan.device != "cpu"
    source = torch.ones((4 << 30 if large else 64 << 20) // 4, device=plan.device)
    target = torch.empty_like(source)
    copy_s = _best(plan, lambda: target.copy_(source))
    size = 8192 if large else 512
    left = torch.randn(size, size, dtype=torch.bfloat16, device=plan.device)
    right = torch.randn(size, size, dtype=torch.bfloat16, device=plan.device)
    matmul_s = _best(plan, lambda: torch.mm(left, right))
    found = {"copy_gb_s": 2 * source.nbytes / copy_s / 1e9, "matmul_tflop_s": 2 * size**3 / matmul_s / 1e12}
    print(f"  copy {found['copy_gb_s']:.0f} GB/s, matmul {found['matmul_tflop_s']:.3g} TFLOP/s", flush=True)
    return found


def _best(plan: Plan, work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROOF_TURNS):
        _synchronize(plan)
        start = time.perf_counter()
        work()
        _synchronize(plan)
        times.append(time.perf_counter() - start)
    return min(times)


def _synchronize(plan: Plan) -> None:
    if plan.device != "cpu":
        torch.cuda.synchronize()


@asynccontextmanager
async def engine(plan: Plan, directory: Path, **options: Any) -> AsyncIterator[TorchEngine]:  # noqa: ANN401
    """One that has loaded the model."""
    asked = {"device": plan.device, "dtype": "bfloat16", "enable_prefix_cache": False, **options, **plan.options}
    made = TorchEngine(directory, asked)
    start = time.perf_counter()
    await made.start()
    print(f"  engine ready after {time.perf_counter() - start:.1f} s", flush=True)
    try:
        yield made
    finally:
        await made.close()


def run(part: str, plan: Plan, directory: Path, roof: Figures) -> Figures:
    """One of the parts."""
    if part == "roofs":
        return roofs(plan)
    if part == "prefill":
        return asyncio.run(prefill(plan, directory, roof))
    if part == "fp8":
        plan = replace(plan, options={**plan.options, "quantization": "fp8"})
    return asyncio.run(decode(plan, directory, roof))


async def decode(plan: Plan, directory: Path, roof: Figures) -> Figures:
    """Milliseconds of a step at each batch, and its share of what the memory's bandwidth would allow."""
    found: Figures = {}
    sizes = {"kv_cache_mb": plan.kv_cache_mb, "max_num_seqs": max(plan.batches)}
    async with engine(plan, directory, **sizes) as made:
        buffer = memoryview(bytearray(made.info.kv_bytes(plan.context)))  # zeros: attention costs the same
        steps = made.steps()
        for batch in plan.batches:
            step_s = await _step_s(plan, made, steps, batch, buffer)
            share = plan.step_bytes(batch) / step_s / (roof["copy_gb_s"] * 1e9)
            found[str(batch)] = {"step_ms": step_s * 1e3, "roofline": share}
            print(f"  decode, batch {batch}: {step_s * 1e3:.2f} ms, {share:.0%} of the copy's bandwidth", flush=True)
    return found


async def _step_s(plan: Plan, made: TorchEngine, steps: AsyncIterator[Any], batch: int, buffer: memoryview) -> float:
    """Seconds of a step, over those in which the whole batch was there."""
    stopping = Stopping(max_tokens=WARM_STEPS + plan.steps + 4 * batch, ignore_eos=True)  # some while others come
    names = [f"{batch}/{number}" for number in range(batch)]

    async def insert() -> None:
        for name in names:
            tokens = plan.tokens(plan.context + 1, name)
            await made.insert(Sequence(name, tokens, plan.context, GREEDY, stopping), plan.context, buffer)

    inserting = asyncio.ensure_future(insert())
    full: list[float] = []
    while len(full) < WARM_STEPS + plan.steps:
        step = await anext(steps)
        if step.failed:
            raise step.failed[0][1]
        if len(step.sampled) == batch:
            full.append(time.perf_counter())
    await inserting
    for name in names:
        await made.release(name)
    return (full[-1] - full[WARM_STEPS]) / (plan.steps - 1)


async def prefill(plan: Plan, directory: Path, roof: Figures) -> Figures:
    """Seconds to a long prompt's first token, one prompt at a time, and its share of the matmul's rate."""
    sizes = {"kv_cache_mb": plan.kv_cache_mb // 8, "prefill_chunk": plan.prompt, "max_num_seqs": 4}
    async with engine(plan, directory, **sizes) as made:
        buffer = memoryview(bytearray(made.info.kv_bytes(plan.prompt)))
        times = []
        for number in range(PROMPTS):
            name, tokens = f"prompt/{number}", plan.tokens(plan.prompt, f"prompt {number}")
            start = time.perf_counter()
            await made.prefill(Sequence(name, tokens, plan.prompt, GREEDY, Stopping(max_tokens=2)), buffer)
            times.append(time.perf_counter() - start)
            await made.exported(name)
            await made.release(name)
    rate = plan.prefill_flops() / min(times) / 1e12
    share = rate / roof["matmul_tflop_s"]
    median_ms = statistics.median(times) * 1e3
    said = f"{min(times) * 1e3:.1f} ms, {rate:.3g} TFLOP/s, {share:.0%} of a matmul's"
    print(f"  prefill of {plan.prompt}: {said}", flush=True)
    return {"first_token_ms": min(times) * 1e3, "median_ms": median_ms, "tflop_s": rate, "roofline": share}
