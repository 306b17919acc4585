"""The front of a decode worker through many short streams: roster, streams, frames and what is kept of them.

An engine without a model steps at once, and a bus that takes everything counts bytes: nothing but our own work remains.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from prometheus_client import CollectorRegistry

from services.decode.streams import Stream, Streams
from shared.engine import Sampled, Step
from shared.messages import Accepted, Finish, Request, Sampling, Stopping, Value, pack_tokens
from shared.policy.admission import DecodeAdmission
from shared.policy.orphans import Orphans
from shared.subjects import Subjects
from shared.tasks import Tasks
from shared.text import ByteTokenizer, TextStream
from shared.worker.frames import FrameSender
from shared.worker.keeping import Keeping
from shared.worker.metrics import WorkerMetrics
from shared.worker.roster import Roster
from shared.worker.running import Running
from shared.worker.work import WorkMeter

WIDTH: Final = 50
"""Streams at once."""
LENGTH: Final = 8
"""Tokens of each."""
WORDS: Final = "It was a dark and stormy night; naïve café, 日本。".encode()


class Bus:
    """Takes everything, as a connection with an empty buffer does."""

    connected, closed = True, False

    def __init__(self) -> None:
        self.nbytes = 0

    async def publish(self, subject: str, message: Value | bytes, *, reply: str = "", traced: bool = True) -> None:
        del subject, reply, traced
        self.nbytes += len(message) if isinstance(message, bytes) else 0


class Front:
    """One worker's. It is its own engine: `streams` at a time come, step to their end, and leave."""

    def __init__(self, kept: int) -> None:
        self.bus = Bus()
        self._tokenizer = ByteTokenizer()
        metrics, tasks, work = WorkerMetrics(CollectorRegistry()), Tasks("front"), WorkMeter()
        sender = FrameSender(self.bus, Subjects(), "decode-1", lambda: (1, 1), patience_s=1.0)  # type: ignore[arg-type]
        self.admission = DecodeAdmission(1 << 20, 1 << 30, WIDTH, 4)
        self.roster: Roster[Running] = Roster(
            "decode-1",
            self.admission,
            bus=self.bus,  # type: ignore[arg-type]
            tasks=tasks,
            sender=sender,
            metrics=metrics,
            work=work,
            keeping=Keeping(3600.0, most=kept),
            orphans=Orphans(1.0, 1.0),
        )
        self._streams = Streams(self, sender, self._tokenizer, metrics, work)  # type: ignore[arg-type]
        self._wanted = self._come = 0
        self._look: Callable[[int], None] = lambda _: None

    async def run(self, streams: int, look: Callable[[int], None]) -> None:
        """Serve so many; `look` is called with the number served so far, whenever nobody is in."""
        self._wanted, self._look = self._come + streams, look
        await self._streams.pump()

    async def steps(self) -> AsyncIterator[Step]:
        """See Engine."""
        while self._come < self._wanted:
            keys = [self._enter() for _ in range(WIDTH)]
            await asyncio.sleep(0)  # they join
            for n in range(LENGTH):
                finish = Finish.LENGTH if n == LENGTH - 1 else None
                yield Step([Sampled(key, WORDS[(n + place) % len(WORDS)], finish) for place, key in enumerate(keys)])
            while len(self.roster):  # noqa: ASYNC110  # it has no event for us
                await asyncio.sleep(0)
            self._look(self._come)

    def _enter(self) -> str:
        number = self._come = self._come + 1
        stopping = Stopping(LENGTH, stop=["\n\nUser:", f"the end of {number}"])  # one that each request has alone
        request = Request(
            f"r{number}", 0, "gateway-1", number, pack_tokens([1, 2]), 2, Sampling(), stopping, 0, 0, memo=b"memo"
        )
        running = Running(request, Accepted(request.request_id, 0, "decode-1", (1, 1)))
        _ = self.admission.offer(
            request.request_id, 0, blocks=1, kv_bytes=64, deadline=1.0, free_blocks=1 << 20, now=0.0, local=False
        )
        self.roster.enter(running, self._carry)
        return running.key

    async def _carry(self, running: Running) -> None:
        request = running.request
        text = TextStream(self._tokenizer, request.stopping, [])
        stream = Stream(running.key, request, text, 0, running.progress)
        self._streams.join(stream)
        error = await stream.over
        assert error is None
        self._streams.leave(stream)
        _ = self.admission.ended(request.request_id, 0)
        self.roster.exit(running)
