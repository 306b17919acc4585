"""CPU per token on the way from an engine's step to the frame's bytes: decode's share of the token path.

The engine is scripted (steps of 1 and 64 sequences, ready in memory) and the bus takes everything, so that only our own
work is measured: detokenising, stop strings, columns, MessagePack. Baseline: MessagePack of the finished frame alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import msgpack
from prometheus_client import CollectorRegistry

from bench.table import Row
from services.decode.streams import Stream, Streams
from shared.engine import Engine, Sampled, Step
from shared.messages import Request, Sampling, Stopping, Value, pack_tokens
from shared.subjects import Subjects
from shared.text import ByteTokenizer, TextStream
from shared.worker.frames import FrameSender
from shared.worker.metrics import WorkerMetrics
from shared.worker.progress import Progress

STEPS = 2000
TEXT = b"The quick brown fox jumps over the lazy dog. "


class _Bus:
    """Takes everything, as a connection with an empty buffer does."""

    connected, closed = True, False

    def __init__(self) -> None:
        self.last = b""

    async def publish(self, subject: str, message: Value | bytes, *, reply: str = "", traced: bool = True) -> None:
        del subject, reply, traced
        if isinstance(message, bytes):
            self.last = message


class _Engine:
    """Has all its steps ready."""

    def __init__(self, sequences: int) -> None:
        self._keys = [f"request-{number}#0" for number in range(sequences)]

    async def steps(self) -> AsyncIterator[Step]:
        for step in range(STEPS):
            yield Step([Sampled(key, TEXT[(step + n) % len(TEXT)]) for n, key in enumerate(self._keys)])


def _request(number: int, stop: list[str]) -> Request:
    return Request(
        f"request-{number}",
        0,
        "gateway-1",
        number,
        pack_tokens([1, 2]),
        1,
        Sampling(),
        Stopping(max_tokens=STEPS * 2, stop=stop),
        0,
        0,
    )


async def _measure(sequences: int, stop: list[str]) -> tuple[float, bytes]:
    bus, metrics, tokenizer = _Bus(), WorkerMetrics(CollectorRegistry()), ByteTokenizer()
    sender = FrameSender(bus, Subjects(), "decode-1", lambda: (1, 1), patience_s=1.0)  # type: ignore[arg-type]
    engine: Engine = _Engine(sequences)  # type: ignore[assignment]
    streams = Streams(engine, sender, tokenizer, metrics)
    for number in range(sequences):
        request = _request(number, stop)
        text = TextStream(tokenizer, request.stopping, [2])
        streams.join(Stream(f"request-{number}#0", request, text, 0, Progress(request)))
    made = time.process_time()
    async for _ in engine.steps():
        pass
    began = time.process_time()
    await streams.pump()
    done = time.process_time()
    return (done - began - (began - made)) / (STEPS * sequences) * 1e6, bus.last


def _encoding(data: bytes, sequences: int) -> float:
    plain = msgpack.unpackb(data)
    began = time.process_time()
    for _ in range(STEPS):
        msgpack.packb(plain)
    return (time.process_time() - began) / (STEPS * sequences) * 1e6


def rows() -> list[Row]:
    """Measure."""
    result = []
    for sequences in (1, 64):
        for stop in ([], ["\n\nUser:", "###"]):
            value, data = asyncio.run(_measure(sequences, stop))
            name = f"decode: step to frame, {sequences} streams{', stop strings' if stop else ''}"
            result.append(Row(name, value, "µs/token", "msgpack alone", _encoding(data, sequences)))
    return result
