"""The processes around the gateway in its benchmark: a frame source, a load client, and the floor to compare with.

Run as `python -m bench.gateway_parts source|load|floor ...`. None of them shares code with the gateway's token path.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop

from shared.bus import Delivery
from shared.config import Nats
from shared.messages import (
    Accepted,
    Finish,
    Finished,
    Frame,
    Group,
    HandedOff,
    Member,
    PrefillRequest,
    Request,
    Role,
    ScenarioMap,
    State,
    Status,
    decode,
)
from shared.nats_bus import NatsBus
from shared.subjects import Subjects

EPOCH = (1, 1)
TICK = os.sysconf("SC_CLK_TCK")
STAMP = re.compile(rb'"content":" (\d{12,})"')
SCENARIO = "chat"


def cpu_s(pid: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Source:
    """A prefill and a decode without a model: accepts every offer, then one frame per step for all streams."""

    def __init__(self, bus: NatsBus, rate: float) -> None:
        self.bus, self.rate = bus, rate
        self.subjects = Subjects()
        self.live: dict[int, tuple[Request, int]] = {}

    async def run(self) -> None:
        """Serve for ever."""
        await self.bus.subscribe(self.subjects.prefill(SCENARIO, "p1"), self.on_offer)
        beat = asyncio.create_task(self.beat())
        due = time.monotonic()
        while not beat.done():
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.step()
        beat.result()

    async def beat(self) -> None:
        """Be seen as a fleet of two."""
        number = 0
        while True:
            number += 1
            group = Group("g1", [Member("p1", EPOCH)], [Member("d1", EPOCH)])
            await self.bus.publish(self.subjects.map(SCENARIO), ScenarioMap(SCENARIO, number, EPOCH, [group]))
            for name, role in (("p1", Role.PREFILL), ("d1", Role.DECODE)):
                status = Status(name, EPOCH, role, State.READY, SCENARIO, "g1", 100_000, 100_000, number=number)
                await self.bus.publish(self.subjects.status(SCENARIO, name), status)
            await asyncio.sleep(0.25)

    def on_offer(self, delivery: Delivery) -> None:
        """Accept, and put the stream among those that step."""
        request = decode(delivery.data, PrefillRequest).request
        self.accepting = asyncio.ensure_future(self.accept(delivery, request))

    async def accept(self, delivery: Delivery, request: Request) -> None:
        """Answer and hand off at once."""
        await self.bus.respond(delivery, Accepted(request.request_id, request.attempt, "p1", EPOCH))
        handed = HandedOff(request.stream, request.request_id, request.attempt, "d1", EPOCH)
        await self.bus.publish(self.subjects.frames(request.gateway), handed, traced=False)
        self.live[request.stream] = (request, request.generated)

    async def step(self) -> None:
        """Publish the next token of every stream, one message per gateway."""
        for gateway in {request.gateway for request, _ in self.live.values()}:
            mine = [(n, r, i) for n, (r, i) in self.live.items() if r.gateway == gateway]
            ended = [n for n, r, i in mine if i + 1 >= r.stopping.max_tokens]
            now = time.monotonic_ns()
            frame = Frame(
                "d1",
                EPOCH,
                [n for n, _, _ in mine],
                [r.attempt for _, r, _ in mine],
                [i for _, _, i in mine],
                [1000 + i % 50_000 for _, _, i in mine],
                [f" {now}"] * len(mine),
                [Finished(n, r.attempt, Finish.LENGTH, i + 1, r.prompt_tokens) for n, r, i in mine if n in ended],
            )
            await self.bus.publish(self.subjects.frames(gateway), frame, traced=False)
            for n, r, i in mine:
                self.live[n] = (r, i + 1)
            for n in ended:
                del self.live[n]


async def source(options: argparse.Namespace) -> None:
    """Be the source."""
    bus = await NatsBus.open(Nats(url=options.nats), service="decode")
    await Source(bus, options.rate).run()


class Stream(asyncio.Protocol):
    """One connection that asks for a stream, again and again, and counts what comes."""

    def __init__(self, request: bytes, seen: dict[str, Any]) -> None:
        self.request, self.seen = request, seen
        self.tail = b""
        self.ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count tokens and how long each travelled; ask again after the last chunk."""
        now = time.monotonic_ns()
        seen, known = self.seen, len(self.tail)
        data = self.tail + data
        self.tail = data[-64:]  # a stamp or the end may be cut in two
        if seen["on"]:
            for stamp in STAMP.finditer(data):
                if stamp.end() > known:
                    seen["travel"].append(now - int(stamp[1]))
        if b"HTTP/1.1 " in data and b"HTTP/1.1 200" not in data:
            seen["errors"] += 1
            sys.stderr.write(data.decode("latin1")[:400])
        self.ending = self.ending or b"[DONE]" in data
        if self.ending and data.endswith(b"\n\r\n0\r\n\r\n"):
            seen["done"] += 1
            self.ending, self.tail = False, b""
            self.transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Count it."""
        self.seen["lost"] += not self.seen["stop"]


async def load(options: argparse.Namespace) -> None:
    """Hold streams open and print what was measured as JSON."""
    asked = {"model": SCENARIO, "messages": [{"role": "user", "content": "Tell me a story."}], "stream": True}
    body = json.dumps({**asked, "max_tokens": options.tokens, "ignore_eos": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    seen: dict[str, Any] = {"done": 0, "errors": 0, "lost": 0, "travel": [], "on": False, "stop": False}
    loop = asyncio.get_running_loop()
    for _ in range(options.streams):
        await loop.create_connection(lambda: Stream(request, seen), "127.0.0.1", options.port)
    await asyncio.sleep(options.warm)
    before, began = cpu_s(options.pid), time.monotonic()
    seen["on"] = True
    await asyncio.sleep(options.seconds)
    seen["on"] = False
    used, took = cpu_s(options.pid) - before, time.monotonic() - began
    seen["stop"] = True
    travel = sorted(seen.pop("travel"))
    tokens = max(1, len(travel))
    at = {f"p{p}_ms": travel[min(tokens - 1, tokens * p // 100)] / 1e6 if travel else -1.0 for p in (50, 99)}
    result = {"tokens_s": tokens / took, "cpu_us": used * 1e6 / tokens, "cores": used / took, **at, **seen}
    print(json.dumps(result))


async def floor(options: argparse.Namespace) -> None:
    """Send one event per stream and step, with nothing else around it, to a reader in another process."""
    data = b"12a\r\n" + b"x" * 0x12A + b"\r\n"
    links = []
    for _ in range(options.streams):
        link = socket.create_connection(("127.0.0.1", options.port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        links.append(link)
    sent, due = 0, time.monotonic()
    before, end = cpu_s(os.getpid()), due + options.seconds
    while due < end:
        due += 1 / options.rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        for link in links:
            link.send(data)
        sent += len(links)
    print(json.dumps({"cpu_us": (cpu_s(os.getpid()) - before) * 1e6 / sent}))


class Sink(asyncio.Protocol):
    """Reads and forgets."""


async def sink(options: argparse.Namespace) -> None:
    """Be the reader of `floor`."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", options.port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["source", "load", "floor", "sink"])
    parser.add_argument("--nats", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=50.0)
    options = parser.parse_args()
    uvloop.run({"source": source, "load": load, "floor": floor, "sink": sink}[options.part](options))


if __name__ == "__main__":
    main()
