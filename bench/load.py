"""What is asked of a server, and what came of it: times of every answer, and the CPU that all sides took meanwhile.

Either so many streams, each of which asks again when it was answered, or requests that arrive when they arrive. The
client is `bench.load_client`, a process of its own.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from bench.gateway_clients import cpu_s

REPO: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Served:
    """A server that stands ready."""

    port: int
    model: str  # as requests name it
    front: int  # the process that clients speak to
    roots: list[int]  # processes whose descendants do the rest

    def pids(self) -> list[int]:
        """All of its processes."""
        processes = [psutil.Process(pid) for pid in self.roots]
        return [*self.roots, *(child.pid for one in processes for child in one.children(recursive=True))]


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask, of whom."""

    port: int
    model: str
    answer: int  # tokens
    prompts: Sequence[str | list[int]]
    streams: int = 1
    arrivals: Sequence[float] = ()  # seconds from the start, one for each prompt; then there are no streams

    def request(self, prompt: str | list[int]) -> bytes:
        """The request's bytes."""
        body = json.dumps(
            {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": self.answer,
                "temperature": 0.0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Times(NamedTuple):
    """Of one answer, in nanoseconds of one clock."""

    asked: int  # or when it was due
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one load. CPU is per token, in microseconds."""

    tokens_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    tpot_p99_ms: float
    front_us: float = 0.0
    all_us: float = 0.0
    client_us: float = 0.0  # of the client itself, which has the same cores

    def line(self) -> str:
        """For whoever waits."""
        return (
            f"{self.tokens_s:.0f} tokens/s, first token {self.ttft_p50_ms:.0f} / {self.ttft_p99_ms:.0f} ms, between "
            f"{self.tpot_p50_ms:.1f} / {self.tpot_p99_ms:.1f} ms, CPU {self.front_us:.0f} of {self.all_us:.0f} us, "
            f"of the client {self.client_us:.1f}"
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """What the client saw. `refused`: requests that were not served."""

    times: list[Times]
    answer: int
    client_s: float  # CPU
    refused: int = 0

    @property
    def took_s(self) -> float:
        """From the first request to the last token."""
        return (max(one.last for one in self.times) - min(one.asked for one in self.times)) / 1e9

    def ttft_ms(self) -> list[float]:
        """Of each, sorted."""
        return sorted((one.first - one.asked) / 1e6 for one in self.times)

    def tpot_ms(self) -> list[float]:
        """Of each, sorted: the mean time between its tokens."""
        return sorted(self._between(one) for one in self.times)

    def within(self, ttft_ms: float, tpot_ms: float) -> float:
        """Share of the requests whose times were both within these."""
        good = sum((one.first - one.asked) / 1e6 <= ttft_ms and self._between(one) <= tpot_ms for one in self.times)
        return good / (len(self.times) + self.refused)

    def figures(self, front_s: float = 0.0, all_s: float = 0.0) -> Measured:
        """Rates and percentiles; the seconds are CPU of the server's processes."""
        tokens, ttft, tpot = len(self.times) * self.answer, self.ttft_ms(), self.tpot_ms()
        cpu = [seconds * 1e6 / tokens for seconds in (front_s, all_s, self.client_s)]
        rate = tokens / self.took_s
        return Measured(rate, _at(ttft, 50), _at(ttft, 99), _at(tpot, 50), _at(tpot, 99), *cpu)

    def _between(self, one: Times) -> float:
        return (one.last - one.first) / 1e6 / max(1, self.answer - 1)


async def answered(load: Load) -> Answered:
    """Run the client as a process. Raises RuntimeError where it failed."""
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load_client",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPO,
    )
    printed, _ = await client.communicate(json.dumps(asdict(load)).encode())
    if client.returncode:
        raise RuntimeError(f"the client failed at {len(load.prompts)} requests")
    seen = json.loads(printed)
    return Answered([Times(*one) for one in seen["times"]], load.answer, seen["cpu_s"], seen["refused"])


async def measured(load: Load, served: Served) -> Measured:
    """Run the client, and count the CPU of the server's processes meanwhile. Raises RuntimeError."""
    before = {pid: cpu_s(pid) for pid in served.pids()}
    seen = await answered(load)
    used = {pid: cpu_s(pid) - was for pid, was in before.items()}
    return seen.figures(used[served.front], sum(used.values()))


def _at(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
