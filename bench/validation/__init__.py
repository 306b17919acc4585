"""The simulator against a real cluster: the same requests through both, on this machine.

`python -m bench validation` serves each load of `simulator.validation.loads` with real processes, `TAKES` times, keeps
the times in `simulator/validation/recorded.json`, and shows how far the simulator is off. What a message costs here is
measured on another load than those compared. It takes twenty-five minutes, and wants an idle machine.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.place import place
from bench.table import Row
from bench.validation.replay import replay
from simulator.measures.distribution import Distribution
from simulator.validation import record
from simulator.validation.calibration import costs
from simulator.validation.loads import CALIBRATION, LOADS
from simulator.validation.record import Costs, kept
from simulator.validation.served import Served, Take
from simulator.validation.simulated import simulated

FILE: Final = Path(record.__file__).parent / "recorded.json"
TAKES: Final = 3
"""Runs of each load: how they differ tells how near one can come."""


def rows() -> list[Row]:
    """Record every load anew, and compare."""
    runs: dict[str, list[Take]] = {load.name: [] for load in (CALIBRATION, *LOADS)}
    for take in range(TAKES):  # all loads, then all again: what the machine does meanwhile is shared
        for load in (CALIBRATION, *LOADS):
            runs[load.name].append(asyncio.run(replay(load)))
            print(f"  {take + 1} of {TAKES}, {load.name}: {_figures(runs[load.name][-1])}", flush=True)
    found = recording(runs)
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=0) + b"\n")
    return compared(found)


def recording(runs: dict[str, list[Take]]) -> dict[str, Any]:
    """What is kept of the runs."""
    return {
        "where": place(),
        "costs": asdict(costs(runs[CALIBRATION.name])),
        "runs": {load.name: kept(load, runs[load.name]) for load in (CALIBRATION, *LOADS)},
    }


def compared(found: dict[str, Any]) -> list[Row]:
    """Simulated against real."""
    shown = []
    for load in LOADS:
        takes = record.takes(found, load)
        ours, real = simulated(load, Costs(**found["costs"]), takes), Served.of(takes, load)
        shown += [Row(f"{load.name}: {name}", of(ours), unit, "real", of(real)) for name, unit, of in _SHOWN]
    return shown


_SHOWN: Final[tuple[tuple[str, str, Callable[[Served], float]], ...]] = (
    ("requests that ended well", "% of all", lambda run: 100 * run.good),
    ("throughput", "tokens/s", lambda run: run.tokens_s),
    ("TTFT, mean", "ms", lambda run: run.ttft_ms.mean),
    ("TTFT, p50", "ms", lambda run: run.ttft_ms.percentile(50.0)),
    ("TTFT, p99", "ms", lambda run: run.ttft_ms.percentile(99.0)),
    ("TPOT, mean", "ms", lambda run: run.tpot_ms.mean),
    ("TPOT, p50", "ms", lambda run: run.tpot_ms.percentile(50.0)),
    ("TPOT, p99", "ms", lambda run: run.tpot_ms.percentile(99.0)),
)


def _figures(take: Take) -> str:
    late = Distribution(one.late_ms for one in take).percentile(99.0)
    good = sum(one.ok for one in take)
    return f"{good} of {len(take)} ended well, sent {late:.1f} ms late at p99, load {os.getloadavg()[0]:.1f}"
