"""A prompt's hand-off between two processes: one contiguous buffer, confirmed once, against its blocks one by one.

Run it by `python -m bench handoff`, on a machine with two free cores. Block-fixed is what P/D-Serve measured its
block-free transfer against: a paged cache whose pages (16 tokens of one layer, keys and values) each go by themselves
and are confirmed before the next. It runs in the same code as the product's push, by a switch that only this benchmark
has (`shared.kv.block_fixed`), over one connection, under one ticket and one checksum. Its pages lie in another order at
either end and are sent from and received into their places: it pays for no gather and no scatter. Block-free is shown
by itself, which is the figure of the paper, and with the gather before it and the scatter behind it. A third baseline
confirms whole blocks of a block-first cache, of all layers at once: that part of the gain is the layout's. Each way in
turns, so that all see the same load; of each the best round counts. What does not fit into memory is left out.
`kv_overlap` adds its row.
"""

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from bench import kv_overlap
from bench.kv_handoff_far import SETTINGS, Far, Pages, Push
from bench.table import Row
from shared.kv.arena import Arena
from shared.kv.block_fixed import BlockFixed
from shared.kv.layout import KvLayout
from shared.kv.sender import Sender

LAYOUTS: Final = {
    "Gemma 3 270M": KvLayout("bench", "bfloat16", layers=18, kv_heads=1, head_dim=256, block_tokens=16),
    "8B": KvLayout("bench", "bfloat16", layers=32, kv_heads=8, head_dim=128, block_tokens=16),
}
TOKENS: Final = (1024, 4096, 16384)
ROUNDS: Final = {1024: 20, 4096: 8, 16384: 4}
TRANSPORTS: Final = ("tcp", "shm")
_COPIES: Final = 6  # of the buffer: a cache and staging at either end, and room for the others on the machine

Times = dict[str, list[float]]


def rows() -> list[Row]:
    """Run it."""
    found: list[Row] = []
    for model, layout in LAYOUTS.items():
        for tokens in TOKENS:
            if _COPIES * layout.buffer_bytes(tokens) > _available():
                continue
            for transport, times in asyncio.run(_measured(layout, tokens)).items():
                found += _rows(f"{transport}, {model}, {tokens >> 10}k", times)
    return [*found, *kv_overlap.rows()]


def _rows(what: str, times: Times) -> list[Row]:
    best = {name: min(seconds) * 1e3 for name, seconds in times.items()}
    whole = min(map(sum, zip(times["gather"], times["free"], times["scatter"], strict=True))) * 1e3
    return [
        Row(f"hand-off {what}", best["free"], "ms", "block-fixed, pages", best["pages"]),
        Row(f"hand-off {what}, with gather and scatter", whole, "ms", "block-fixed, pages", best["pages"]),
        Row(f"hand-off {what}", best["free"], "ms", "block-fixed, whole blocks", best["blocks"]),
        Row(f"hand-off {what}, scatter alone", best["scatter"], "ms", "with gather and push", whole),
    ]


async def _measured(layout: KvLayout, tokens: int) -> dict[str, Times]:
    nbytes = layout.buffer_bytes(tokens)
    page_bytes = layout.block_bytes // layout.layers
    arena, pages = Arena(nbytes), Pages(layout, tokens)
    ways = {"free": 0, "pages": page_bytes, "blocks": layout.block_bytes}
    senders = {way: Sender(arena, SETTINGS, BlockFixed(size, seed=1) if size else None) for way, size in ways.items()}
    staging = arena.reserve(nbytes)
    times: dict[str, Times] = {transport: defaultdict(list) for transport in TRANSPORTS}
    with Far(layout, tokens) as far:
        for number in range(ROUNDS[tokens] + 1):
            for transport in TRANSPORTS:
                for way, size in ways.items():
                    started = time.perf_counter()
                    if way == "free":
                        pages.export(staging.view)
                    gathered = time.perf_counter()
                    grant = far.grant(Push(transport, nbytes, size))
                    granted = time.perf_counter()
                    await senders[way].push(staging, grant)
                    pushed = time.perf_counter()
                    scatter_s = far.taken_in_s()
                    if not number:
                        continue  # it warmed all that is measured
                    times[transport][way].append(pushed - granted)
                    if way == "free":
                        times[transport]["gather"].append(gathered - started)
                        times[transport]["scatter"].append(scatter_s)
        for sender in senders.values():
            await sender.close()
    staging.release()
    arena.close()
    return times


def _available() -> int:
    """Bytes of memory that are free."""
    line = next(line for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines() if "Available" in line)
    return int(line.split()[1]) << 10
