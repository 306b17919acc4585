"""The client: asks, and notes when first and last tokens came, until all prompts are through.

Run as a process of its own (`python -m bench.load_client`), because it shares the machine with what it measures. It is
one loop over epoll, without an event loop's callbacks, and reads no more of an answer than it must know: a token costs
it one `recv`. What it costs is among the figures. Reads a Load from stdin, prints what it saw as JSON.
"""

import json
import re
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from bench.load import Load, Times

USED: Final = re.compile(rb'"completion_tokens": ?(\d+)')
END: Final = b"0\r\n\r\n"
KEPT: Final = 600
"""Bytes of an answer's end in which its usage is looked for."""
LONGEST_S: Final = 900.0


class Refused(Exception):
    """Raised when an answer is no stream of tokens."""


class Stream:
    """One connection. Notes of each answer when it was asked for, when its first and its last tokens came."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.socket = socket.create_connection(("127.0.0.1", load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.times: list[Times] = []
        self._tail = b""
        self._asked = self._first = self._last = 0

    def ask(self, prompt: str | list[int], asked: int) -> None:
        """Ask; `asked` is the time that counts."""
        self._tail, self._first, self._asked = b"", 0, asked
        self.socket.sendall(self._load.request(prompt))

    def hear(self, now: int) -> bool:
        """Read what is there; True at the answer's end. Raises Refused where it is none, RuntimeError where wrong."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise RuntimeError("the connection broke")
        if not self._first and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            raise Refused(data[:600].decode("latin1"))
        if b'"text":' in data:
            self._first = self._first or now
            self._last = now
        self._tail = (self._tail + data)[-KEPT:] if len(data) < KEPT else data[-KEPT:]
        if not (data.endswith(END) and b"[DONE]" in self._tail):
            return False
        used = USED.search(self._tail)
        if used is None or int(used[1]) != self._load.answer:
            raise RuntimeError(f"not {self._load.answer} tokens were answered: {self._tail!r}")
        self.times.append(Times(self._asked, self._first, self._last))
        return True


class Client:
    """All of its connections."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._epoll = select.epoll()
        self._open: dict[int, Stream] = {}
        self.times: list[Times] = []
        self.refused = 0

    def run(self) -> None:
        """Ask for everything."""
        give_up = time.monotonic() + LONGEST_S
        for _ in self._arriving() if self._load.arrivals else self._streaming():
            if time.monotonic() > give_up:
                raise RuntimeError(f"not answered within {LONGEST_S:g} s")

    def _streaming(self) -> Iterator[None]:
        """So many streams, each asking again at once. A refusal is an error."""
        prompts = iter(self._load.prompts)
        for _ in range(min(self._load.streams, len(self._load.prompts))):
            self._add(next(prompts), time.monotonic_ns())
        while self._open:
            for stream in self._hear(1.0):
                prompt = next(prompts, None)
                if prompt is None:
                    self._drop(stream)
                else:
                    stream.ask(prompt, time.monotonic_ns())
            if self.refused:
                raise RuntimeError("a request was refused")
            yield

    def _arriving(self) -> Iterator[None]:
        """Each when it is due, on a connection of its own."""
        start = time.monotonic_ns()
        due = [start + int(seconds * 1e9) for seconds in self._load.arrivals]
        place = 0
        while place < len(due) or self._open:
            while place < len(due) and due[place] <= time.monotonic_ns():
                self._add(self._load.prompts[place], due[place])
                place += 1
            wait = (due[place] - time.monotonic_ns()) / 1e9 if place < len(due) else 1.0
            for stream in self._hear(max(0.0, wait)):
                self._drop(stream)
            yield

    def _add(self, prompt: str | list[int], asked: int) -> None:
        stream = Stream(self._load)
        self._open[stream.socket.fileno()] = stream
        self._epoll.register(stream.socket, select.EPOLLIN)
        stream.ask(prompt, asked)

    def _drop(self, stream: Stream) -> None:
        self.times += stream.times
        del self._open[stream.socket.fileno()]
        stream.socket.close()  # and epoll has forgotten it

    def _hear(self, timeout_s: float) -> list[Stream]:
        """Wait and read; those whose answers are complete."""
        ready = self._epoll.poll(timeout_s)
        now = time.monotonic_ns()
        done = []
        for descriptor, _ in ready:
            stream = self._open[descriptor]
            try:
                if stream.hear(now):
                    done.append(stream)
            except Refused as refusal:
                if not self.refused:
                    sys.stderr.write(f"{refusal}\n")
                self.refused += 1
                self._drop(stream)
        return done


def main() -> None:
    """One load."""
    client = Client(Load(**json.load(sys.stdin)))
    cpu = time.process_time()
    client.run()
    seen: dict[str, Any] = {"times": client.times, "refused": client.refused, "cpu_s": time.process_time() - cpu}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
