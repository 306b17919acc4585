"""One load through a real cluster: gateway, prefills, decodes, monitor, NATS and Redis as processes, the sim engine.

Owns the requests and their times as a client sees them. Judges nothing.
"""

import asyncio
import gc
import json
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp

from simulator.validation.loads import BLOCK, WARM_S, WARM_UP, Load
from simulator.validation.served import Answer
from simulator.workload.arrival import Arrival
from tests.faults.cluster import cluster

LETTERS: Final = range(97, 123)
"""Token ids that prompts are made of: bytes, to the sim engine."""
REST_S: Final = 2.0
"""After the cluster says that it is ready, before the first request."""
PATIENCE_S: Final = 120.0
TOML: Final = """
[scenario.chat]
prefill_slots = {slots}
prefix_affinity = false
queue_timeout_s = {queue_s}
ttft_slo_ms = 5000
[scenario.chat.ratio]
mode = "fixed"
"""


async def replay(load: Load) -> list[Answer]:
    """Start the load's fleet, warm it up, send each request at its time, and end when all have."""
    toml = TOML.format(slots=load.prefill_slots, queue_s=load.queue_s)
    with tempfile.TemporaryDirectory() as folder:
        async with cluster(
            Path(folder), prefills=load.prefills, decodes=load.decodes, options=dict(load.options), toml=toml
        ) as started:
            await asyncio.sleep(REST_S)
            return await _sent(f"{started.url()}/v1/completions", [*WARM_UP, *load.arrivals()])


async def _sent(url: str, arrivals: list[Arrival]) -> list[Answer]:
    """What those after the warm-up got. Raises RuntimeError where that did not end well: what follows says nothing."""
    bodies = [_body(one, number) for number, one in enumerate(arrivals)]
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    gc.disable()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            start = time.monotonic() + 0.5
            times = [start + one.at + (WARM_S if place >= len(WARM_UP) else 0.0) for place, one in enumerate(arrivals)]
            work = [
                asyncio.ensure_future(_one(session, url, body, due)) for due, body in zip(times, bodies, strict=True)
            ]
            done = await asyncio.gather(*work)
    finally:
        gc.enable()
    warm = sum(one.ok for one in done[: len(WARM_UP)])
    if warm < len(WARM_UP):
        raise RuntimeError(
            f"{warm} of {len(WARM_UP)} requests of the warm-up ended well: see whether the machine is idle"
        )
    return done[len(WARM_UP) :]


async def _one(session: aiohttp.ClientSession, url: str, body: bytes, due: float) -> Answer:
    """Send one and read it to its end."""
    await asyncio.sleep(max(0.0, due - time.monotonic()))
    sent = time.monotonic()
    late_ms = (sent - due) * 1000
    first: float | None = None
    last, tail, status = sent, b"", 0
    try:
        async with session.post(url, data=body, headers={"content-type": "application/json"}) as answer:
            status = answer.status
            async for chunk in answer.content.iter_any():
                if status == HTTPStatus.OK and b'"text"' in chunk:
                    last = time.monotonic()
                    first = last if first is None else first
                tail = (tail + chunk)[-400:]
    except (aiohttp.ClientError, OSError) as error:
        tail = repr(error).encode()
    e2e_ms = (time.monotonic() - sent) * 1000
    if first is None or status != HTTPStatus.OK or b"[DONE]" not in tail or b'"error"' in tail:
        return Answer(late_ms, None, None, e2e_ms)
    tokens = int(json.loads(body)["max_tokens"])
    return Answer(late_ms, (first - sent) * 1000, (last - first) * 1000 / (tokens - 1), e2e_ms)


def _body(arrival: Arrival, number: int) -> bytes:
    return json.dumps(
        {
            "model": "chat",
            "prompt": list(prompt(arrival, number)),
            "max_tokens": arrival.output_tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
        }
    ).encode()


def prompt(arrival: Arrival, number: int) -> Iterator[int]:
    """Token ids: `BLOCK` for each of its blocks, drawn from the block's id; without blocks, drawn from its number."""
    seeds: Iterable[str] = [f"block {block}" for block in arrival.blocks]
    if not arrival.blocks:
        seeds = (f"request {number} {place}" for place in range(-(-arrival.input_tokens // BLOCK)))
    left = arrival.input_tokens
    for seed in seeds:
        rng = random.Random(seed)  # noqa: S311  no secret
        yield from (rng.choice(LETTERS) for _ in range(min(BLOCK, left)))
        left -= min(BLOCK, left)
