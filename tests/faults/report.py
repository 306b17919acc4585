"""`python -m tests.faults.report`: each fault, again and again, under load; the table of docs/reliability.md.

Owns the repeats and the table. What is hurt, and how the fleet is made whole again, is in `report_faults.py`; whether
every text is what it would have been is judged by `history.py`, which knows nothing of either.
"""

import argparse
import asyncio
import math
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.client import resume
from tests.faults.history import History, check
from tests.faults.report_faults import FAULTS, Fault, Fleet, opened

STREAMS = 12
TOKENS = 400
STALLED_S = 0.15
"""A silence that long is a stall: a token is due each 5 ms."""
HUNG_S = 90.0
AGAIN_S = 0.05
"""Before a client whose connection broke comes back."""


@dataclass
class Tally:
    """What came of all runs of one fault."""

    runs: int = 0
    requests: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    resumed: int = 0
    stalls: list[float] = field(default_factory=list)  # of the streams that stalled, seconds
    whole: list[float] = field(default_factory=list)  # until the fleet was whole again, seconds

    def row(self, name: str) -> list[str]:
        """One line of the table."""
        stalls = [f"{_share(self.stalls, share):.2f}" for share in (0.5, 0.99)] if self.stalls else ["-", "-"]
        whole = f"{_share(self.whole, 0.5):.1f} / {max(self.whole):.1f}" if self.whole else "-"
        counts = [self.runs, self.requests, len(self.failed), len(self.wrong), len(self.stalls)]
        return [name, *map(str, counts), *stalls, whole]


HEAD = ["fault", "runs", "requests", "failed", "wrong", "stalled", "stall p50, s", "p99, s", "whole again p50 / max, s"]


def _share(values: list[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)]


async def measure(fault: Fault, runs: int, folder: Path) -> Tally:
    """Hurt a cluster so many times."""
    tally = Tally()
    async with opened(fault, folder) as fleet:
        for run in range(runs):
            await one_run(fault, fleet, tally, run)
            say(".", end="")
            await fault.mend(fleet)
            await fleet.whole(standby=True)
        await fleet.cluster.quiet(60)
    return tally


async def one_run(fault: Fault, fleet: Fleet, tally: Tally, run: int) -> None:
    """Let streams flow, hurt something, wait until all have ended and the fleet is whole."""
    history = History()
    asks = [asyncio.ensure_future(_stream(history, fleet, run, k, tally)) for k in range(STREAMS)]
    try:
        await history.flowing(STREAMS, 20, HUNG_S)
        began = time.monotonic()
        await fault.hurt(fleet)
        healed = asyncio.ensure_future(fleet.whole())
        await asyncio.wait_for(asyncio.gather(*asks), HUNG_S)
        await healed
        tally.whole.append(time.monotonic() - began if fleet.whole_at < began else fleet.whole_at - began)
    finally:
        for one in asks:
            one.cancel()
    tally.runs += 1
    tally.requests += STREAMS
    tally.failed += history.failed
    tally.wrong += check(history)
    gaps = [entry.begun.longest_gap_s for entry in history.entries]
    tally.stalls += [gap for gap in gaps if gap > STALLED_S]


async def _stream(history: History, fleet: Fleet, run: int, k: int, tally: Tally) -> None:
    """Ask at the first gateway; where the connection breaks, go on at the other one, as clients do."""
    answer = await history.ask(fleet.cluster.url(1), f"{run}-{k} " + "x" * (k * 37 % 300), TOKENS, seed=1000 * run + k)
    while not answer.whole and fleet.gateways > 1 and not isinstance(answer.error, dict):
        tally.resumed += 1
        await asyncio.sleep(AGAIN_S)
        await resume(fleet.cluster.url(2), answer)


def render(rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def say(text: str, end: str = "\n") -> None:
    """Print at once: a run takes minutes."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


async def main() -> int:
    """Run and print. Fails where a request failed or a token was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each fault")
    parser.add_argument("faults", nargs="*", help=f"some of: {', '.join(FAULTS)}")
    options = parser.parse_args()
    rows, bad = [], []
    for name in options.faults or FAULTS:
        say(name, end=" ")
        with tempfile.TemporaryDirectory() as folder:
            tally = await measure(FAULTS[name], options.runs, Path(folder))
        rows.append(tally.row(name))
        bad += [f"{name}: {text}" for text in (*tally.failed, *tally.wrong)]
        say("")
    say(render(rows))
    for line in bad:
        say(f"WRONG: {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
