"""The smallest service, for tests of the lifecycle: in-process, or run as a program with its behaviour in PROBE."""

import asyncio
import os
import sys
import time
from contextlib import AsyncExitStack

from shared.instance import Instance, Load
from shared.lifecycle import main
from shared.messages import Role, State


class Probe:
    """Does nothing but what it is told: how long `open` and `drain` take, and what they raise."""

    role = Role.DECODE

    def __init__(self, *, open_s: float = 0.0, drain_s: float = 0.0, fails: BaseException | None = None) -> None:
        self.open_s = open_s
        self.drain_s = drain_s
        self.fails = fails
        self.blocks_thread_s = 0.0
        self.instance: Instance | None = None
        self.ready = asyncio.Event()
        self.drained_with: list[float] = []
        self.broken = 0
        self.closed = False
        self._seen_ready = False

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        say("opening")
        stack.callback(self._close)
        self.instance = instance
        instance.when_broken(self._break)
        await asyncio.sleep(self.open_s)
        if self.blocks_thread_s:
            await asyncio.to_thread(time.sleep, self.blocks_thread_s)
        if self.fails is not None:
            raise self.fails
        self.ready.set()
        say("open")

    def load(self) -> Load:
        if self.instance is not None and self.instance.state is State.READY and not self._seen_ready:
            self._seen_ready = True
            say("ready")
        return Load(slots=4, free=3, steps=7, busy=True, kv_free_bytes=1024)

    async def drain(self, seconds: float) -> None:
        say("draining")
        self.drained_with.append(seconds)
        await asyncio.sleep(self.drain_s)
        say("drained")

    def _break(self) -> None:
        self.broken += 1

    def _close(self) -> None:
        self.closed = True
        say("closed")


def say(word: str) -> None:
    if "PROBE" in os.environ:
        sys.stdout.write(f"{word}\n")
        sys.stdout.flush()


def told() -> Probe:
    """Make the probe that the environment describes: PROBE is `open_s,drain_s,blocks_thread_s`."""
    open_s, drain_s, blocks_thread_s = map(float, os.environ["PROBE"].split(","))
    probe = Probe(open_s=open_s, drain_s=drain_s)
    probe.blocks_thread_s = blocks_thread_s
    return probe


if __name__ == "__main__":
    sys.exit(main(told))
