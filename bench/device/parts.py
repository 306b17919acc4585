"""The parts in their order, the file that their figures go to, and the table."""

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.device import checkpoint, inside, serving
from bench.device.apart import apart
from bench.device.plan import Plan
from bench.place import place
from bench.table import Row

import torch  # isort: skip  after the engine's package, which sets how its threads wait

Figures = dict[str, Any]
INSIDE: Final = ("roofs", "decode", "prefill", "fp8")
"""Parts without a relay, each in a process of its own: the relay's need the device's memory."""
LONGEST_S: Final = 240.0
UNITS: Final = {
    "tokens_s": "tokens/s",
    "ttft_p50_ms": "ms",
    "ttft_p99_ms": "ms",
    "tpot_p50_ms": "ms",
    "tpot_p99_ms": "ms",
}


def run(plan: Plan | None = None) -> list[Row]:
    """Run the plan's parts; one that breaks is reported, and the others still run."""
    plan = plan or Plan()
    if plan.device != "cpu" and not torch.cuda.is_available():
        raise RuntimeError("there is no accelerator; python -m bench.device --device cpu --shape tiny tries it without")
    found: Figures = {"place": place(plan.device), "plan": plan.said()}
    with checkpoint.model(plan) as directory:
        print(f"  model written to {directory}", flush=True)
        for part in ["roofs", *(one for one in plan.parts if one != "roofs")]:
            start = time.perf_counter()
            try:
                found[part] = _part(part, plan, directory, found)
            except Exception as error:  # noqa: BLE001  a machine is lent for a while: the other parts are still worth it
                print(f"  {part} is broken: {error}", flush=True)
            print(f"  {part} took {time.perf_counter() - start:.0f} s", flush=True)
            if plan.json:
                Path(plan.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return _table(plan, found)


def _part(part: str, plan: Plan, directory: Path, found: Figures) -> Figures:
    if part in INSIDE:
        made: Figures = apart(LONGEST_S, inside.run, part, plan, directory, found.get("roofs", {}))
        return made
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_serving(part, plan, directory, Path(folder)))


async def _serving(part: str, plan: Plan, directory: Path, folder: Path) -> Figures:
    async with asyncio.timeout(LONGEST_S):
        return await serving.serving(plan, directory, folder, mixed=part == "mixed")


def _table(plan: Plan, found: Figures) -> list[Row]:
    roof, rows = found.get("roofs", {}), []
    for batch, one in found.get("decode", {}).items():
        ideal = plan.step_bytes(int(batch)) / roof["copy_gb_s"] / 1e6
        rows.append(Row(f"decode step, batch {batch}", one["step_ms"], "ms", "bytes / copy bandwidth", ideal))
    if "prefill" in found:
        rate = found["prefill"]["tflop_s"]
        rows.append(Row(f"prefill of {plan.prompt} tokens", rate, "TFLOP/s", "matmul 8192", roof["matmul_tflop_s"]))
    if "split" in found and "mixed" in found:
        split, mixed = found["split"], found["mixed"]
        what = f"P and D apart, {plan.streams} streams"
        rows += [
            Row(f"{what}: {key}", split["streams"][key], unit, "in one process", mixed["streams"][key])
            for key, unit in UNITS.items()
        ]
        rows += [
            Row(f"requests/s, {share:.0%} in time", split[key], "1/s", "in one process", mixed[key])
            for share, key in ((share, f"goodput_{share:g}") for share in (plan.good, plan.better))
        ]
    return rows
