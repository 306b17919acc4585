"""The simulator against a real cluster: the same requests through both, on this machine.

`python -m bench validation` serves each load of `simulator.validation.loads` with real processes, keeps the times in
`simulator/validation/recorded.json`, and shows how far the simulator is off. What a message costs here is measured on
another load than those compared: one request at a time. It takes about six minutes, and wants an idle machine.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.place import place
from bench.table import Row
from bench.validation.replay import Replayed, replay
from simulator.measures.distribution import Distribution
from simulator.validation import served
from simulator.validation.loads import CALIBRATION, LOADS, Load
from simulator.validation.served import Served, fleet, simulated

FILE: Final = Path(served.__file__).parent / "recorded.json"


def rows() -> list[Row]:
    """Record every load anew, and compare."""
    runs = {}
    for load in (CALIBRATION, *LOADS):
        runs[load.name] = asyncio.run(replay(load))
        print(f"  {load.name}: {_figures(runs[load.name])}", flush=True)
    record = recording(runs)
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=0) + b"\n")
    return compared(record)


def recording(runs: dict[str, Replayed]) -> dict[str, Any]:
    """What is kept of the runs."""
    return {
        "where": place(),
        "message_s": message_s(runs[CALIBRATION.name].answers),
        "runs": {load.name: _run(load, runs[load.name]) for load in (CALIBRATION, *LOADS)},
    }


def message_s(answers: list[served.Answer]) -> float:
    """Half of what a first token takes beyond its computing: an offer there, a token back. Of requests that are alone.

    The client's and the gateway's HTTP are in it, and timers that fire late.
    """
    timing = CALIBRATION.options["prefill_ms"]
    tokens = CALIBRATION.arrivals()[0].input_tokens
    computing_ms = sum(term * tokens**power for term, power in zip(timing, (2, 1, 0), strict=True))
    ttft_ms = Distribution(one.ttft_ms for one in answers if one.ttft_ms is not None)
    return round(max(0.0, ttft_ms.percentile(50.0) - computing_ms) / 2000, 6)


def _run(load: Load, run: Replayed) -> dict[str, Any]:
    late = Distribution(run.late_ms)
    answers = [[None if ms is None else round(ms, 1) for ms in _times(one)] for one in run.answers]
    return {
        "options": load.options,
        "fleet": fleet(load),
        "client_late_ms": {f"p{p:g}": round(late.percentile(p), 1) for p in (50.0, 99.0, 100.0)},
        "answers": answers,
    }


def _times(one: served.Answer) -> tuple[float | None, ...]:
    return one.ttft_ms, one.tpot_ms, one.e2e_ms


def compared(record: dict[str, Any]) -> list[Row]:
    """Simulated against real."""
    found = []
    for load in LOADS:
        ours, real = simulated(load, record["message_s"]), served.real(record, load)
        found += [Row(f"{load.name}: {name}", of(ours), unit, "real", of(real)) for name, unit, of in _SHOWN]
    return found


_SHOWN: Final[tuple[tuple[str, str, Callable[[Served], float]], ...]] = (
    ("requests that ended well", "requests", lambda run: run.good),
    ("throughput", "tokens/s", lambda run: run.tokens_s),
    ("TTFT, mean", "ms", lambda run: run.ttft_ms.mean),
    ("TTFT, p50", "ms", lambda run: run.ttft_ms.percentile(50.0)),
    ("TTFT, p99", "ms", lambda run: run.ttft_ms.percentile(99.0)),
    ("TPOT, mean", "ms", lambda run: run.tpot_ms.mean),
    ("TPOT, p50", "ms", lambda run: run.tpot_ms.percentile(50.0)),
    ("TPOT, p99", "ms", lambda run: run.tpot_ms.percentile(99.0)),
)


def _figures(run: Replayed) -> str:
    late = Distribution(run.late_ms).percentile(99.0)
    good = sum(one.ok for one in run.answers)
    return f"{good} of {len(run.answers)} ended well, sent {late:.1f} ms late at p99, load {os.getloadavg()[0]:.1f}"
