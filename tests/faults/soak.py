"""A soak: a random schedule of faults under a continuous load, and the judgment of everything that came of it.

`python -m tests.faults.soak --seed 7 --seconds 300` does it again and prints the timeline.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import randrange

from tests.faults import soak_field
from tests.faults.history import History, check
from tests.faults.schedule import schedule
from tests.faults.soak_audit import Audit, watch
from tests.faults.soak_deeds import Deeds
from tests.faults.soak_field import Field
from tests.faults.soak_load import Load

FRESH = 100
AT_ONCE = 10
QUIET_S = 40.0


@dataclass
class Soak:
    """What happened and what was wrong with it."""

    seed: int
    seconds: float
    aloud: bool = False
    timeline: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    asked: int = 0
    moved: int = 0
    leases_seen: int = 0
    stalls: str = ""
    _started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Note something, with its time."""
        line = f"{time.monotonic() - self._started:7.2f}  {text}"
        self.timeline.append(line)
        if self.aloud:
            print(line, flush=True)  # noqa: T201

    def __str__(self) -> str:
        counts = f"{self.asked} requests, {self.moved} moves to another gateway, {self.leases_seen} leases seen"
        again = f"again: python -m tests.faults.soak --seed {self.seed} --seconds {self.seconds:g}"
        verdict = ["nothing was wrong"] if not self.wrong else ["WRONG:", *self.wrong]
        return "\n".join([*self.timeline, counts, self.stalls, *verdict, again])

    async def run(self, folder: Path) -> None:
        """Start a fleet, hurt it, heal it, and judge."""
        async with soak_field.field(folder, self.say) as field:
            load, audit = Load(field.urls, self.seed), Audit()
            await load.learn()
            over = asyncio.Event()
            watching = asyncio.ensure_future(watch(field.cluster, audit, field.learn, over))
            try:
                await self._hurt(field, load)
                await self._fresh(field)
                await field.cluster.quiet(QUIET_S)
            except (AssertionError, TimeoutError) as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
            finally:
                over.set()
                await watching
            self.wrong += load.wrong() + audit.wrong
            self.asked, self.moved, self.leases_seen = load.asked, load.moved, audit.leases_seen
            self.stalls = load.stalls()

    async def _hurt(self, field: Field, load: Load) -> None:
        over = asyncio.Event()
        self._started = time.monotonic()
        users = asyncio.ensure_future(load.run(over))
        try:
            await Deeds(field).perform(schedule(self.seed, self.seconds), self._started)
            over.set()
            await field.healed()
            self.say("all is healed")
            await users
            self.say("all have ended")
        finally:
            users.cancel()
            await asyncio.gather(users, return_exceptions=True)

    async def _fresh(self, field: Field) -> None:
        """New requests succeed, at every gateway (I8)."""
        history = History()
        for start in range(0, FRESH, AT_ONCE):
            asks = (
                history.ask(field.urls[k % len(field.urls)], f"fresh {k}", 10, seed=k)
                for k in range(start, start + AT_ONCE)
            )
            await asyncio.gather(*asks)
        self.wrong += [f"afterwards: {one}" for one in check(history) + history.failed]
        self.say(f"{len(history.completed)} of {FRESH} fresh requests have succeeded")


def run() -> int:
    """Soak as the command line says; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description="Random faults under load.")
    parser.add_argument("--seed", type=int, default=randrange(1_000_000))  # noqa: S311
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--keep", type=Path, help="folder for logs, which stay there")
    arguments = parser.parse_args()
    soak = Soak(arguments.seed, arguments.seconds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(soak.run(folder))
    print(soak)  # noqa: T201
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(run())
