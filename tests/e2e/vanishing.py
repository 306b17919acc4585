"""Clients that vanish: raw sockets that send a request, or a part of it, and go away at a random point.

Owns what one client does and when it leaves; a seed makes a crowd repeatable. Judges nothing.
"""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

NO_LINGER: Final = struct.pack("ii", 1, 0)
"""Closing resets the connection, as a client does that is killed."""
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One client's request and the point at which it goes."""

    streamed: bool
    choices: int
    prompt: str
    max_tokens: int
    cut_at: float | None  # this share of the request is sent, and no more
    wait_s: float  # after the request
    events: int  # then so many reads, as they come
    abrupt: bool  # RST instead of FIN

    def request(self, host: str, model: str) -> bytes:
        """Write it out."""
        body = {"model": model, "prompt": self.prompt, "max_tokens": self.max_tokens, "n": self.choices}
        data = json.dumps(body | {"stream": self.streamed, "ignore_eos": True}).encode()
        lines = ["POST /v1/completions HTTP/1.1", f"Host: {host}", f"Content-Length: {len(data)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@dataclass
class Crowd:
    """Many clients, so many at once."""

    host: str
    port: int
    seed: int
    model: str = "chat"
    left: Counter[str] = field(default_factory=Counter)  # by what they had seen when they went

    def visit(self, number: int) -> Visit:
        """Draw the client of this number."""
        draw = random.Random(f"{self.seed}/{number}")  # noqa: S311  no secret
        kind, streamed = draw.random(), draw.random() < 0.7
        return Visit(
            streamed=streamed,
            choices=draw.choice((1, 1, 1, 2, 3)),
            prompt="x" * draw.choice((5, 60, 200, 900)),
            max_tokens=draw.choice((1, 8, 60, 400, 1000) if streamed else (1, 8, 60)),
            cut_at=draw.random() if kind < 0.08 else None,
            wait_s=draw.choice((0.0, 0.002, 0.02, 0.1, 0.4)) * draw.random(),
            events=0 if kind < 0.55 else draw.randrange(1, 25),
            abrupt=draw.random() < 0.5,
        )

    async def come_and_go(self, numbers: range, at_once: int) -> None:
        """Let these clients come, so many at a time, and wait until the last has gone."""
        queue = iter(numbers)

        async def one_after_another() -> None:
            for number in queue:
                await self._one(self.visit(number))

        await asyncio.gather(*(one_after_another() for _ in range(at_once)))

    async def _one(self, visit: Visit) -> None:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            got = b""
            try:
                request = visit.request(self.host, self.model)
                if visit.cut_at is not None:
                    writer.write(request[: int(len(request) * visit.cut_at)])
                    await asyncio.sleep(visit.wait_s)
                else:
                    writer.write(request)
                    await asyncio.sleep(visit.wait_s)
                    for _ in range(visit.events):
                        data = await reader.read(2048)
                        got += data
                        if not data or _complete(visit, got):
                            break
            except ConnectionError:
                pass
            finally:
                self.left[_phase(visit, got)] += 1
                if visit.abrupt:
                    connection: socket.socket = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                    writer.transport.abort()
                writer.close()


def _complete(visit: Visit, got: bytes) -> bool:
    """Whether nothing more will come on a connection that stays open."""
    return not (visit.streamed and got.startswith(b"HTTP/1.1 200")) or got.endswith(b"0\r\n\r\n")


def _phase(visit: Visit, got: bytes) -> str:
    if visit.cut_at is not None:
        return "while it sent"
    if not got:
        return "before any answer"
    if not got.startswith(b"HTTP/1.1 200"):
        return "after a refusal"
    if b"[DONE]" in got or not visit.streamed:
        return "after the answer"
    return "amid the stream"
