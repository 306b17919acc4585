"""The clients of the gateway's benchmark: raw sockets, because an HTTP library would measure itself.

`load` holds streams open, `short` asks for one token again and again, `hold` only keeps connections open. Each prints
what it saw as JSON. They read no more of an answer than they need to know that it is right.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

PAGE_KB = os.sysconf("SC_PAGE_SIZE") / 1024
STAMP = re.compile(rb'"content": ?" (\d{12,})"')
CONTENT = re.compile(rb'"content": ?" ')
SCHEDULED = 2
"""In the number of a process's clock: the time that the scheduler counted, in nanoseconds."""
TIMED = 64
"""Streams whose tokens' travel is measured; of the others only the number of tokens is counted, which costs less."""
PATIENCE_S = 60.0


def cpu_s(pid: int) -> float:
    """User and system time of one process, threads that have ended included, from the clock that Linux keeps for it."""
    return time.clock_gettime((~pid << 3) | SCHEDULED)


def rss_kb(pid: int) -> float:
    """Memory of one process that is resident."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_KB


@dataclass
class Seen:
    """What all connections of a client saw together."""

    on: bool = False  # whether it counts now
    stop: bool = False
    tokens: int = 0
    done: int = 0
    begun: int = 0  # connections that got a first byte
    errors: int = 0
    lost: int = 0
    took: list[int] = field(default_factory=list)  # ns

    def result(self) -> dict[str, float]:
        """Counts and percentiles of the times."""
        counted = asdict(self)
        times = sorted(counted.pop("took"))
        for p in (50, 99):
            counted[f"p{p}_ms"] = times[min(len(times) - 1, len(times) * p // 100)] / 1e6 if times else -1.0
        return counted


class Connection(asyncio.Protocol):
    """One connection that asks again after each answer."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        self.request, self.seen = request, seen
        self.tail = b""
        self.begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        self.asked = time.monotonic_ns()
        self.tail = b""
        if self.request:
            self.transport.write(self.request)

    def failed(self, data: bytes) -> bool:
        """Say whether an answer begins here that is none of the good ones."""
        if not self.begun:
            self.begun = True
            self.seen.begun += 1
        if b"HTTP/1.1 " not in data or b"HTTP/1.1 200" in data:
            return False
        self.seen.errors += 1
        sys.stderr.write(data.decode("latin1")[:400])
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Count it."""
        self.seen.lost += not self.seen.stop


class Stream(Connection):
    """Counts tokens, and how long they travelled."""

    def __init__(self, request: bytes, seen: Seen, *, timed: bool) -> None:
        super().__init__(request, seen)
        self.timed = timed
        self.ending = False

    def data_received(self, data: bytes) -> None:
        """Count; ask again after the last chunk."""
        now, seen, known = time.monotonic_ns(), self.seen, len(self.tail)
        if self.failed(data):
            return
        whole = self.tail + data
        self.tail = whole[-64:]  # a stamp or the end may be cut in two
        if seen.on:
            found = [found for found in (STAMP if self.timed else CONTENT).finditer(whole) if found.end() > known]
            seen.tokens += len(found)
            if self.timed:
                seen.took.extend(now - int(stamp[1]) for stamp in found)
        self.ending = self.ending or b"[DONE]" in whole
        if self.ending and whole.endswith(b"\r\n0\r\n\r\n"):
            seen.done += 1
            self.ending = False
            self.ask()


class Short(Connection):
    """Times whole answers."""

    def data_received(self, data: bytes) -> None:
        """Look for the end of the answer."""
        if self.failed(data):
            return
        self.tail += data
        head, parted, body = self.tail.partition(b"\r\n\r\n")
        if not parted:
            return
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        complete = len(body) == int(length[1]) if length else body.endswith(b"0\r\n\r\n") and b"[DONE]" in body
        if complete:
            if self.seen.on:
                self.seen.done += 1
                self.seen.took.append(time.monotonic_ns() - self.asked)
            self.ask()


def asking(options: argparse.Namespace, tokens: int, *, stream: bool) -> bytes:
    """Make the request's bytes."""
    words = ("Tell me a story. " * (1 + options.prompt // 17))[: options.prompt]
    asked: dict[str, Any] = {"model": options.model, "messages": [{"role": "user", "content": words}]}
    body = json.dumps({**asked, "stream": stream, "max_tokens": tokens, "ignore_eos": True}).encode()
    key = f"Authorization: Bearer {options.key}\r\n" if options.key else ""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{key}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def connect(options: argparse.Namespace, make: Callable[[int], asyncio.Protocol]) -> None:
    """Open the connections, a few at a time."""
    loop = asyncio.get_running_loop()
    for number in range(options.streams):
        await loop.create_connection(lambda number=number: make(number), "127.0.0.1", options.port)


async def measure(options: argparse.Namespace, seen: Seen) -> dict[str, float]:
    """Count for the given time; the measured process's CPU in it."""
    await asyncio.sleep(options.warm)
    pids = [pid for pid in (options.pid, options.source) if pid]
    before, began = [cpu_s(pid) for pid in pids], time.monotonic()
    seen.on = True
    await asyncio.sleep(options.seconds)
    seen.on = False
    took = time.monotonic() - began
    used = [cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)] + [0.0, 0.0]
    seen.stop = True
    return {"took": took, "cpu_s": used[0], "cores": used[0] / took, "source_cores": used[1] / took}


async def load(options: argparse.Namespace) -> None:
    """Hold streams of tokens open."""
    seen = Seen()
    request = asking(options, options.tokens, stream=True)
    every = max(1, options.streams // TIMED)
    await connect(options, lambda number: Stream(request, seen, timed=number % every == 0))
    result = await measure(options, seen)
    tokens = max(1, seen.tokens)
    print(
        json.dumps(
            {**seen.result(), **result, "cpu_us": result["cpu_s"] * 1e6 / tokens, "tokens_s": tokens / result["took"]}
        )
    )


async def short(options: argparse.Namespace) -> None:
    """Ask for one token again and again, each connection as fast as it is answered."""
    seen = Seen()
    request = asking(options, 1, stream=options.stream)
    await connect(options, lambda _: Short(request, seen))
    result = await measure(options, seen)
    done = max(1, seen.done)
    print(
        json.dumps(
            {**seen.result(), **result, "cpu_us": result["cpu_s"] * 1e6 / done, "requests_s": done / result["took"]}
        )
    )


async def hold(options: argparse.Namespace) -> None:
    """Hold connections, idle or with a live stream each: how much memory the measured process needs for one."""
    seen = Seen()
    before = rss_kb(options.pid)
    request = b"" if options.idle else asking(options, options.tokens, stream=True)
    await connect(options, lambda _: Stream(request, seen, timed=False))
    give_up = time.monotonic() + PATIENCE_S
    while not options.idle and seen.begun < options.streams and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await asyncio.sleep(options.warm)
    seen.stop = True
    each = (rss_kb(options.pid) - before) / options.streams
    print(json.dumps({**seen.result(), "kb": each}))
