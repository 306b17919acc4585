"""Prefill and decode as two processes on one device, and both in one process, under the same load and objectives.

Split: the relay with one prefill and one decode. Mixed: the same gateway, and a decode that computes its prompts
itself (`local_prefill_tokens`), chunk by chunk beside what it decodes, as aggregated serving does. First so many
streams at once, then requests that arrive at random at a rate, higher and higher until too few of them are in time.
"""

import math
import random
from pathlib import Path
from typing import Any, Final

from bench.device.plan import Plan
from bench.load import Answered, Load, Served, answered
from bench.relay import relay
from shared.policy.admission import LOCAL_ONE_IN

ENOUGH: Final = 1.15
"""Two rates that are no farther apart than this are one."""
SLOTS: Final = 16
SPLIT_CHUNK: Final = 4096
MIXED_CHUNK: Final = 512
"""Tokens of a step: as much as keeps the device busy; as much as lets those that decode beside it wait no longer."""
PATIENCE_S: Final = 20
"""What no worker has taken by then is refused, and was late long before."""
Figures = dict[str, Any]


async def serving(plan: Plan, directory: Path, folder: Path, *, mixed: bool) -> Figures:
    """Figures of one way of serving. `folder`: for its logs."""
    name = "mixed" if mixed else "split"
    scenario = _scenario(plan, directory, mixed=mixed)
    async with relay(folder, scenario, prefills=0 if mixed else 1, kv=_kv(plan, mixed=mixed)) as served:
        await _closed(plan, served, f"{name} warms", plan.streams)
        closed = await _closed(plan, served, name, 2 * plan.streams)
        print(f"  {name}, {plan.streams} streams: {closed.figures().line()}", flush=True)
        found: Figures = {"streams": _figures(closed), "rates": []}
        await _search(plan, served, name, found["rates"])
    for share in (plan.good, plan.better):
        found[f"goodput_{share:g}"] = max((r["rate"] for r in found["rates"] if r["within"] >= share), default=0.0)
    return found


async def _closed(plan: Plan, served: Served, seed: str, requests: int) -> Answered:
    prompts = [plan.tokens(plan.request_prompt, f"{seed} {number}") for number in range(requests)]
    return await answered(Load(served.port, served.model, plan.request_answer, prompts, streams=plan.streams))


async def _search(plan: Plan, served: Served, name: str, seen: list[Figures]) -> None:
    """Try rates for the highest at which enough requests are in time: double it, then halve the distance."""
    good, bad = 0.0, math.inf
    for _ in range(plan.rates):
        if good and bad / good <= ENOUGH:
            break
        rate = _between(plan, good, bad)
        found = await _at_rate(plan, served, f"{name} {rate:g}", rate)
        within = found.within(plan.ttft_ms, plan.tpot_ms)
        seen.append({"rate": rate, "within": within, **_figures(found)})
        print(f"  {name}, {rate:.3g} requests/s: {within:.1%} in time; {found.figures().line()}", flush=True)
        good, bad = (rate, bad) if within >= plan.good else (good, rate)


def _between(plan: Plan, good: float, bad: float) -> float:
    if bad == math.inf:
        return good * 2 if good else plan.first_rate
    return math.sqrt(good * bad) if good else bad / 2


async def _at_rate(plan: Plan, served: Served, seed: str, rate: float) -> Answered:
    source = random.Random(seed)  # noqa: S311  no secret
    arrivals, now = [], 0.0
    while (now := now + source.expovariate(rate)) < plan.seconds:
        arrivals.append(now)
    arrivals = arrivals or [0.0]
    prompts = [plan.tokens(plan.request_prompt, f"{seed} {number}") for number in range(len(arrivals))]
    return await answered(Load(served.port, served.model, plan.request_answer, prompts, arrivals=arrivals))


def _scenario(plan: Plan, directory: Path, *, mixed: bool) -> Figures:
    sequences = 2 * LOCAL_ONE_IN * plan.streams
    options = {
        "device": plan.device,
        "dtype": "bfloat16",
        "kv_cache_mb": plan.serving_kv_mb * (2 if mixed else 1),
        "max_num_seqs": sequences,  # a decode computes prompts for one in LOCAL_ONE_IN of its places
        "max_model_len": plan.request_prompt + plan.request_answer + 64,
        "enable_prefix_cache": False,
        "prefill_chunk": MIXED_CHUNK if mixed else SPLIT_CHUNK,
        **plan.options,
    }
    return {
        "model": str(directory),
        "engine": "torch",
        "prefill": 0 if mixed else 1,
        "prefill_slots": SLOTS,
        "queue_timeout_s": PATIENCE_S,
        "local_prefill_tokens": 1 << 20 if mixed else 0,
        "engine_options": options,
    }


def _kv(plan: Plan, *, mixed: bool) -> Figures:
    """Room for the prompts that are on their way; on a device by its own memory. Mixed takes every prompt at once."""
    mebibytes = plan.staging_mb * (4 if mixed else 1)
    return {"staging_mb": mebibytes, **({} if plan.device == "cpu" else {"device_staging_mb": mebibytes})}


def _figures(found: Answered) -> Figures:
    seen = found.figures()
    return {
        "requests": len(found.times),
        "refused": found.refused,
        "tokens_s": seen.tokens_s,
        "ttft_p50_ms": seen.ttft_p50_ms,
        "ttft_p99_ms": seen.ttft_p99_ms,
        "tpot_p50_ms": seen.tpot_p50_ms,
        "tpot_p99_ms": seen.tpot_p99_ms,
    }
