"""A crowd of clients that mean no good, in a process of its own: its sockets are not the gateway's.

`python crowds.py PORT KIND COUNT`: prints a line of JSON whenever it reads one, and ends with its input. Kinds: `idle`
asks once and keeps the connection; `silent` says nothing; `heads` and `bodies` send a byte now and then; `flood` opens
connections as fast as it can and drops each.
"""

import json
import resource
import selectors
import socket
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
BODY = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{"
ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
FIRST = {"idle": ASKED, "silent": b"", "heads": HEAD, "bodies": BODY, "flood": b""}
BATCH = 200


class Crowd:
    """As the tests see it."""

    def __init__(self, port: int, kind: str, count: int) -> None:
        argv = [sys.executable, __file__, str(port), kind, str(count)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def look(self) -> dict[str, int]:
        """How many are open, closed and refused. Blocks: call it in a thread."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._process.stdout.readline())
        return found


class Sockets:
    """The crowd itself."""

    def __init__(self, port: int, kind: str, count: int) -> None:
        self._port, self._kind, self._count = port, kind, count
        self._links: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._counts = {"tried": 0, "answered": 0, "refused": 0, "closed": 0}

    def run(self) -> None:
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        nudged = time.monotonic()
        while True:
            self._grow()
            for key, _ in self._selector.select(0.0 if self._counts["tried"] < self._count else 0.1):
                if isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)
                elif not sys.stdin.readline():
                    return
                else:
                    sys.stdout.write(json.dumps({**self._counts, "open": len(self._links)}) + "\n")
                    sys.stdout.flush()
            if self._kind in ("heads", "bodies") and time.monotonic() - nudged > 0.2:
                nudged = time.monotonic()
                self._nudge()

    def _grow(self) -> None:
        for _ in range(min(BATCH, self._count - self._counts["tried"])):
            link = _connect(self._port, FIRST[self._kind])
            if link is not None and self._kind == "flood":
                link.close()
                continue
            self._counts["tried"] += 1
            if link is None:
                self._counts["closed"] += 1
            else:
                self._links.add(link)
                self._selector.register(link, selectors.EVENT_READ)

    def _read(self, link: socket.socket) -> None:
        try:
            data = link.recv(4096)
        except OSError:
            data = b""
        self._counts["answered"] += b" 200 " in data
        self._counts["refused"] += b" 429 " in data
        if not data:
            self._counts["closed"] += 1
            self._selector.unregister(link)
            self._links.discard(link)
            link.close()

    def _nudge(self) -> None:
        for link in self._links:
            with suppress(OSError):
                link.send(b"x")


def _connect(port: int, first: bytes) -> socket.socket | None:
    try:
        link = socket.create_connection(("127.0.0.1", port), timeout=20)
        link.sendall(first)
    except OSError:
        return None
    link.setblocking(False)
    return link


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    Sockets(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])).run()
