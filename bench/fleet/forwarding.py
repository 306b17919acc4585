"""Forwarding by rejection against the old design: queues at the prefills, chosen by fewest streams.

P/D-Serve's figure 14a: the old design falls to 57 % within the TTFT objective at four times the load, the new one keeps
99 % at five. The same fleet, prompts, arrivals and objective for both; one prompt is computed at a time.
"""

import random
from typing import Final

from bench.fleet.house import fleet
from bench.fleet.traffic import Client, poisson, success, worst_window
from bench.table import Row
from shared.messages import Role

PREFILLS, DECODES = 8, 3
SLO_S: Final = 1.0
SECONDS: Final = 40.0
FULL_RATE: Final = 36.0
"""Requests a second at five times the load: prefills are then busy for five sixths of the time."""
LOADS: Final = (1, 2, 3, 4, 5)
WINDOW_S: Final = 5.0
TOML: Final = """
[gateway]
max_streams = 20000
[scenario.chat]
prefix_affinity = false
prefill_slots = {slots}
ttft_slo_ms = 1000
queue_timeout_s = {wait}
[scenario.chat.ratio]
mode = "fixed"
"""


def lengths(source: random.Random) -> tuple[int, int]:
    """Chats (50 ms of prefill, then 6 s of answer) beside labels put on long texts (half a second, then hardly any)."""
    return (150, 120) if source.random() < 0.7 else (1650, 3)


async def rows() -> list[Row]:
    """Run both designs at each load."""
    old = await _design(slots=4096, wait=120, module="bench.fleet.old_gateway")
    new = await _design(slots=1, wait=SLO_S, module=None)
    found = [
        Row(f"TTFT in time at {load}x, by rejection", new[load][0] * 100, "%", "queues at prefills", old[load][0] * 100)
        for load in LOADS
    ]
    worst = [
        Row(f"the same, worst {WINDOW_S:g} s", new[load][1] * 100, "%", "queues at prefills", old[load][1] * 100)
        for load in (4, 5)
    ]
    return found + worst


async def _design(*, slots: int, wait: float, module: str | None) -> dict[int, tuple[float, float]]:
    """Success overall and in the worst window, by load."""
    options: dict[str, object] = {"max_num_seqs": max(96, slots), "decode_step_ms": 50, "decode_seq_ms": 0}
    toml = TOML.format(slots=slots, wait=wait)
    result = {}
    async with fleet(
        options, prefills=PREFILLS, decodes=DECODES, toml=toml, modules={Role.GATEWAY: module} if module else {}
    ) as cluster:
        for load in LOADS:
            asks = poisson(FULL_RATE * load / LOADS[-1], SECONDS, lengths, seed=load)
            seen = await Client(cluster.url(), seed=load).open_loop(asks)
            result[load] = success(seen, SLO_S), worst_window(seen, SLO_S, WINDOW_S)
            print(
                f"  {module or 'by rejection'} at {load}x: {len(seen)} requests, {result[load][0]:.3f} in time",
                flush=True,
            )
    return result
