"""Each server in its turn, alone on the machine: started, warmed, measured at each number of streams, ended."""

import asyncio
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench.load import Load, Measured, Served, measured
from bench.place import place
from bench.table import Row
from bench.vllm import llama
from bench.vllm.figures import Found, table
from bench.vllm.plan import Plan, prompts, read_model
from bench.vllm.servers import SERVERS


def run(plan: Plan | None = None) -> list[Row]:
    """Do it. A server of which a request fails, or brings another number of tokens than it should, is left out."""
    plan = plan or Plan()
    found = asyncio.run(_found(plan))
    if plan.json:
        said = {"plan": plan.said(), "place": place(), "found": {n: _plain(f) for n, f in found.items()}}
        Path(plan.json).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return table(found)


def _plain(figures: dict[int, Measured]) -> dict[str, dict[str, float]]:
    return {str(streams): {key: round(v, 3) for key, v in asdict(one).items()} for streams, one in figures.items()}


async def _found(plan: Plan) -> Found:
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder:
        model = read_model(plan, Path(folder))
        for number, name in enumerate(plan.servers):
            own = Path(folder) / str(number)
            own.mkdir()
            try:
                found[name] = await _one(name, plan, model, own)
            except (AssertionError, RuntimeError) as error:  # hours of measuring must not be lost for one of them
                print(f"  {name} BROKE and is left out: {error}", flush=True)
    return found


async def _one(name: str, plan: Plan, model: Path, folder: Path) -> dict[int, Measured]:
    if name not in SERVERS:
        return llama.figures(name, plan, folder)
    print(f"  {name} starts ...", flush=True)
    figures: dict[int, Measured] = {}
    async with SERVERS[name](plan, model, folder) as served:
        for streams in plan.streams:
            await _load(served, plan, model, streams, turn=0)  # warms what is made at first use
            turns = [await _load(served, plan, model, streams, turn=turn + 1) for turn in range(plan.turns)]
            figures[streams] = best = max(turns, key=lambda one: one.tokens_s)
            print(f"  {name}, {streams} streams: {best.line()}", flush=True)
    return figures


async def _load(served: Served, plan: Plan, model: Path, streams: int, turn: int) -> Measured:
    requests = streams if turn == 0 else max(plan.least_requests, plan.waves * streams)
    seed = f"{streams} {turn}"
    texts = prompts(model, plan.prompt, requests, seed)
    return await measured(Load(served.port, served.model, plan.answer, texts, streams=streams), served)
