"""What the gateway is compared with: the least that any server must do, and a worker for other gateways.

`floor` sends one event per token and stream into `sink` and does nothing else. `reply` answers every request with the
same bytes. `worker` speaks OpenAI's stream over HTTP, for gateways that stand before such workers.
"""

import argparse
import asyncio
import json
import os
import socket
import time
from typing import cast

from bench.gateway_clients import cpu_s

EVENT = b"12a\r\n" + b"x" * 0x12A + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":%s}]}'
MODEL = {"id": "chat", "object": "model", "owned_by": "bench"}
KNOWN = json.dumps({"object": "list", "data": [MODEL], "status": "ok", "model_path": "chat"}).encode()


async def floor(options: argparse.Namespace) -> None:
    """Send one event per stream and step, with nothing else around it, to a reader in another process."""
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
            link.send(EVENT)
        sent += len(links)
    print(json.dumps({"cpu_us": (cpu_s(os.getpid()) - before) * 1e6 / sent}))


async def sink(options: argparse.Namespace) -> None:
    """Be the reader of `floor`."""
    await _serve(asyncio.Protocol, options.port)


class Reply(asyncio.Protocol):
    """Answers whatever comes, once per segment, with a short JSON body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002  the least that a server can do
        """Answer."""
        self.transport.write(OK % (len(KNOWN), KNOWN))


async def reply(options: argparse.Namespace) -> None:
    """Be the least of all servers."""
    await _serve(Reply, options.port)


class Worker(Reply):
    """An OpenAI server without a model: `max_tokens` tokens at the pace of all, each the time of its sending."""

    live: "dict[Worker, int]" = {}

    def __init__(self) -> None:
        self.read = b""

    def data_received(self, data: bytes) -> None:
        """Read requests, whose bodies have a length or come in chunks."""
        self.read += data
        while (end := self.read.find(b"\r\n\r\n")) >= 0:
            head = self.read[:end].decode("latin1").lower()
            if " http/1." not in head:  # some gateways try HTTP/2 first
                self.transport.close()
                return
            if "transfer-encoding: chunked" in head:
                stop = self.read.find(b"0\r\n\r\n", end)
                if stop < 0:
                    return
                body, self.read = b"".join(self.read[end + 4 : stop].split(b"\r\n")[1::2]), self.read[stop + 5 :]
            else:
                _, found, rest = head.partition("content-length:")
                stop = end + 4 + (int(rest.split("\r\n")[0]) if found else 0)
                if len(self.read) < stop:
                    return
                body, self.read = self.read[end + 4 : stop], self.read[stop:]
            self.answer(head.split(" ", 2)[1], body)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Forget it."""
        Worker.live.pop(self, None)

    def answer(self, path: str, body: bytes) -> None:
        """Begin a stream; anything but a completion gets a friendly word."""
        asked = json.loads(body) if "completions" in path else {}
        if asked.get("stream"):
            self.transport.write(HEAD)
            Worker.live[self] = asked.get("max_tokens") or 64
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "length"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        answer = json.dumps({**whole, "usage": usage}).encode() if asked else KNOWN
        self.transport.write(OK % (len(answer), answer))

    def step(self, left: int) -> None:
        """Send one token, and the end after the last."""
        delta = json.dumps({"content": f" {time.monotonic_ns()}"})
        self.event(CHUNK % delta)
        Worker.live[self] = left - 1
        if left <= 1:
            del Worker.live[self]
            self.event(CHUNK % '{},"finish_reason":"length"')
            self.event("[DONE]")
            self.transport.write(b"0\r\n\r\n")

    def event(self, words: str) -> None:
        """Send one event as a chunk of its own."""
        data = f"data: {words}\n\n".encode()
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


async def worker(options: argparse.Namespace) -> None:
    """Be the worker behind another gateway."""
    serving = asyncio.create_task(_serve(Worker, options.port))
    due = time.monotonic()
    while not serving.done():
        due += 1 / options.rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        for one, left in list(Worker.live.items()):
            one.step(left)
    await serving


async def _serve(protocol: type[asyncio.BaseProtocol], port: int) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()
