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
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp

from simulator.validation.loads import BLOCK, Load
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


@dataclass(frozen=True, slots=True)
class Replayed:
    """A real run."""

    answers: list[Answer]
    late_ms: list[float]  # how much later than due each request was sent


async def replay(load: Load) -> Replayed:
    """Start the load's fleet, send each request at its time, and end when all have."""
    toml = TOML.format(slots=load.prefill_slots, queue_s=load.queue_s)
    with tempfile.TemporaryDirectory() as folder:
        async with cluster(
            Path(folder), prefills=load.prefills, decodes=load.decodes, options=dict(load.options), toml=toml
        ) as started:
            await asyncio.sleep(REST_S)
            return await _sent(f"{started.url()}/v1/completions", load.arrivals())


async def _sent(url: str, arrivals: list[Arrival]) -> Replayed:
    bodies = [_body(one, number) for number, one in enumerate(arrivals)]
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    gc.disable()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            start = time.monotonic() + 0.5
            work = [
                asyncio.ensure_future(_one(session, url, body, start + one.at))
                for one, body in zip(arrivals, bodies, strict=True)
            ]
            done = await asyncio.gather(*work)
    finally:
        gc.enable()
    return Replayed([answer for answer, _ in done], [late for _, late in done])


async def _one(session: aiohttp.ClientSession, url: str, body: bytes, due: float) -> tuple[Answer, float]:
    """Send one and read it to its end; times count from when it was due."""
    await asyncio.sleep(max(0.0, due - time.monotonic()))
    late_ms = (time.monotonic() - due) * 1000
    first: float | None = None
    last, tail, status = due, b"", 0
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
    ended = time.monotonic()
    if first is None or status != HTTPStatus.OK or b"[DONE]" not in tail or b'"error"' in tail:
        return Answer(None, None, (ended - due) * 1000), late_ms
    tokens = int(json.loads(body)["max_tokens"])
    return Answer((first - due) * 1000, (last - first) * 1000 / (tokens - 1), (ended - due) * 1000), late_ms


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
