"""Where a token's time goes: CPU per streamed token in every process of a whole relay, on the engine without a model.

Gateway, prefill, decode, monitor, NATS and Redis are the product's own processes, as `baton up` runs them; the engine
draws its tokens from a hash, and its own part of the decode worker is measured beside it. Of several turns the one with
the least CPU counts, because what else the machine does only ever adds.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from bench.gateway_clients import cpu_s
from bench.gateway_house import PART
from bench.table import Row
from shared.engine import Sequence
from shared.engine.sim_engine.engine import SimEngine
from shared.messages import Sampling, Stopping
from shared.models.resolving import resolve
from tests.faults.cluster import Cluster, cluster

STREAMS: Final = (64, 256)
TURNS: Final = int(os.environ.get("BENCH_TOKENS_TURNS", "3"))
SECONDS: Final = 4.0
WARM_S: Final = 2.0
STEP_MS: Final = 20.0
TOKENS: Final = 4000
HANG_S: Final = 60.0
OPTIONS: Final[dict[str, Any]] = {
    "decode_step_ms": STEP_MS,
    "max_num_seqs": 512,
    "kv_bytes_per_token": 64,
    "prefill_ms": [0, 0, 2],
    "emit": "clock",
}
TOML: Final = """
[scenario.chat]
prefill_slots = 64
"""


def rows() -> list[Row]:
    """Measure."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    made: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        async with cluster(Path(name), prefills=1, decodes=1, options=OPTIONS, toml=TOML) as relay:
            watched = _watched(relay)
            for streams in STREAMS:
                turns = [await _turn(relay, watched, streams) for _ in range(TURNS)]
                best = min(turns, key=lambda turn: sum(turn.values()))
                engine = await _engine(streams)
                made += [_row(who, streams, used, "of all", sum(best.values())) for who, used in best.items()]
                made.append(_row("the engine within decode", streams, engine, "decode", best["decode"]))
    return made


def _row(who: str, streams: int, value: float, baseline_name: str, baseline: float) -> Row:
    return Row(f"a token's CPU, {streams} streams: {who}", value, "µs/token", baseline_name, baseline)


def _watched(relay: Cluster) -> dict[str, int]:
    """Process ids by what they are."""
    services = {name.partition("-")[0]: process.pid for name, process in relay.processes.items()}
    servers = {one.name(): one.pid for one in psutil.Process().children()}
    return {**services, **{name: servers[name] for name in ("nats-server", "valkey-server")}}


async def _turn(relay: Cluster, watched: dict[str, int], streams: int) -> dict[str, float]:
    """CPU per token of each process while so many streams run, in microseconds."""
    port = relay.url().rpartition(":")[2]
    asked = {"--port": port, "--streams": streams, "--tokens": TOKENS, "--seconds": HANG_S}
    flags = [str(part) for pair in asked.items() for part in pair]
    client = await asyncio.create_subprocess_exec(*PART, "load", *flags, stdout=asyncio.subprocess.DEVNULL)
    try:
        await _under_way(relay, streams)
        before = await relay.metrics("decode-1")
        with _counting(watched) as used:
            await asyncio.sleep(SECONDS)
        after = await relay.metrics("decode-1")
    finally:
        client.kill()
        _ = await client.wait()
    if after["baton_worker_streams"] != streams:
        raise RuntimeError(f"{after['baton_worker_streams']:.0f} of {streams} streams were left")
    await relay.quiet()
    tokens = after["baton_worker_tokens_total"] - before["baton_worker_tokens_total"]
    return {who: seconds * 1e6 / tokens for who, seconds in used.items()}


async def _under_way(relay: Cluster, streams: int) -> None:
    """Return once all of them decode, and the prompts' turmoil is over."""
    async with asyncio.timeout(HANG_S):
        while (await relay.metrics("decode-1"))["baton_worker_streams"] < streams:  # noqa: ASYNC110  no event for it
            await asyncio.sleep(0.1)
    await asyncio.sleep(WARM_S)


@contextmanager
def _counting(watched: dict[str, int]) -> Iterator[dict[str, float]]:
    """Fill the answer, at the end, with the CPU seconds that each process took meanwhile."""
    used: dict[str, float] = {}
    before = {who: cpu_s(pid) for who, pid in watched.items()}
    yield used
    used |= {who: cpu_s(pid) - before[who] for who, pid in watched.items()}


async def _engine(streams: int) -> float:
    """CPU per token of the engine's own steps."""
    options = {**OPTIONS, "decode_step_ms": 0.0, "max_model_len": 4096}
    engine = SimEngine(resolve("sim", "sim", options), options)
    await engine.start()
    info = engine.info
    for number in range(streams):
        tokens = list(range(16))
        sequence = Sequence(str(number), tokens, 15, Sampling(), Stopping(TOKENS, ignore_eos=True))
        await engine.insert(sequence, 15, memoryview(bytearray(info.kv_bytes(15))))
    steps, count = engine.steps(), 0
    began = time.process_time()
    async for step in steps:
        count += len(step.sampled)
        if count >= streams * 500:
            break
    used = time.process_time() - began
    await engine.close()
    return used * 1e6 / count
