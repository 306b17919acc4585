"""The client: so many connections, each asking again when it was answered, until all prompts are through.

Run as a process of its own (`python -m bench.vllm.client`), because it shares the machine with what it measures; it
reads no more of an answer than it must know. Reads a Load from stdin, prints what it saw as JSON.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from bench.gateway_clients import Connection, Seen
from bench.vllm.load import Load, Measured

USED: Final = re.compile(rb'"completion_tokens": ?(\d+)')
LONGEST_S: Final = 900.0


class Stream(Connection):
    """One connection. Notes of each answer when it was asked for, when its first and its last tokens came."""

    def __init__(self, load: Load, prompts: Iterator[str], seen: Seen, times: list[tuple[int, int, int]]) -> None:
        super().__init__(b"", seen)
        self.load, self.prompts, self.times = load, prompts, times
        self.done = asyncio.get_running_loop().create_future()
        self.first = self.last = 0
        self.counted = False

    def ask(self) -> None:
        """Ask for the next one, or be done."""
        prompt = next(self.prompts, None)
        if prompt is None:
            self.seen.stop = True
            self.transport.close()
            self.done.set_result(None)
            return
        self.request = self.load.request(prompt)
        self.first, self.counted = 0, False
        super().ask()

    def data_received(self, data: bytes) -> None:
        """Note the time; ask again after the last chunk."""
        now = time.monotonic_ns()
        if self.failed(data):
            self._give_up("an error was answered")
            return
        if b'"text":' in data:
            self.first, self.last = self.first or now, now
        whole = self.tail + data
        if not self.counted and (used := USED.search(whole)):
            self.counted = True
            if int(used[1]) != self.load.answer:
                self._give_up(f"{int(used[1])} tokens were answered")
                return
        self.tail = whole[-400:]
        if b"[DONE]" in self.tail and self.tail.endswith(b"0\r\n\r\n"):
            if not self.counted:
                self._give_up("no usage was told")
                return
            self.times.append((self.asked, self.first, self.last))
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail where it was not us."""
        self._give_up(f"the connection broke: {exc}")

    def _give_up(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(reason))


async def run(load: Load) -> dict[str, float]:
    """Ask for everything; rates and percentiles."""
    loop, seen, times = asyncio.get_running_loop(), Seen(), []
    queue, start = iter(load.prompts), time.monotonic_ns()
    made = [
        await loop.create_connection(lambda: Stream(load, queue, seen, times), "127.0.0.1", load.port)
        for _ in range(min(load.streams, len(load.prompts)))
    ]
    async with asyncio.timeout(LONGEST_S):
        await asyncio.gather(*(stream.done for _, stream in made))
    took = (max(last for _, _, last in times) - start) / 1e9
    ttft = sorted((first - asked) / 1e6 for asked, first, _ in times)
    tpot = sorted((last - first) / 1e6 / (load.answer - 1) for _, first, last in times)
    figures = Measured(len(times) * load.answer / took, _at(ttft, 50), _at(ttft, 99), _at(tpot, 50), _at(tpot, 99))
    return asdict(figures)


def _at(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Load(**json.load(sys.stdin))))))
