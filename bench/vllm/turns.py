"""Each server in its turn, alone on the machine: started, warmed, measured at each number of streams, ended."""

import asyncio
import tempfile
from pathlib import Path

from bench.table import Row
from bench.vllm.figures import table
from bench.vllm.load import Load, Measured, measured
from bench.vllm.plan import Plan, prompts, read_model
from bench.vllm.servers import SERVERS, Served, Server


def run(plan: Plan | None = None) -> list[Row]:
    """Do it. Raises RuntimeError where a request fails or brings another number of tokens than it should."""
    return asyncio.run(_rows(plan or Plan()))


async def _rows(plan: Plan) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        model = read_model(plan, Path(folder))
        found: dict[str, dict[int, Measured]] = {}
        for number, name in enumerate(plan.servers):
            place = Path(folder) / str(number)
            place.mkdir()
            found[name] = await _one(name, SERVERS[name], plan, model, place)
    return table(found)


async def _one(name: str, server: Server, plan: Plan, model: Path, folder: Path) -> dict[int, Measured]:
    print(f"  {name} starts ...", flush=True)
    figures: dict[int, Measured] = {}
    async with server(plan, model, folder) as served:
        for streams in plan.streams:
            await _load(served, plan, model, streams, turn=0)  # warms what is made at first use
            turns = [await _load(served, plan, model, streams, turn=turn + 1) for turn in range(plan.turns)]
            figures[streams] = best = max(turns, key=lambda one: one.tokens_s)
            print(f"  {name}, {streams} streams: {best.line()}", flush=True)
    return figures


async def _load(served: Served, plan: Plan, model: Path, streams: int, turn: int) -> Measured:
    requests = streams if turn == 0 else max(plan.least_requests, plan.waves * streams)
    seed = f"{streams} {turn}"
    load = Load(served.port, served.model, streams, plan.answer, prompts(model, plan.prompt, requests, seed))
    return await measured(load, served.front, served.pids())
