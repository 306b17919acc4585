"""CPU per token on the way from an engine's step to the frame's bytes: decode's share of the token path.

The engine is scripted (its steps are ready in memory) and the bus takes everything, so that only our own work is
measured: detokenising, stop strings, columns, what is kept for another gateway, MessagePack. Baselines of the same run:
MessagePack of the finished frame alone, and, where a real tokenizer is there, the `DecodeStream` of the `tokenizers`
package, the usual way of a server to detokenise, which does nothing of the rest. Of several turns the best counts. All
sequences say the same: `DecodeStream` slows down without end on a character that is never finished.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgpack
import tokenizers
from prometheus_client import CollectorRegistry
from tokenizers.decoders import DecodeStream

from bench import decode_uptime
from bench.table import Row
from services.decode.streams import Stream, Streams
from shared.engine import Sampled, Step
from shared.errors import ConfigError
from shared.messages import Request, Sampling, Stopping, Value, pack_tokens
from shared.models.resolving import resolve
from shared.subjects import Subjects
from shared.text import ByteTokenizer, HubTokenizer, TextStream, Tokenizer
from shared.worker.frames import FrameSender
from shared.worker.metrics import WorkerMetrics
from shared.worker.progress import Progress

STREAMS: Final = (1, 16, 64, 256)
TOKENS: Final = 32_000
"""Of all streams together, in one turn."""
TURNS: Final = 3
MODEL: Final = "gemma-3-270m"
WORDS: Final = "The quick brown fox jumps over the lazy dog, and nobody knows why it does; the dog least of all. "
SCRIPTS: Final = "日本語のテキスト、中文文本。 हिन्दी العربية ไทย 👩🏽\u200d🚀 👨\u200d👩\u200d👧 🦜"
STOPS: Final = ["\n\nUser:", "the end", "###"]


class _Case(NamedTuple):
    """What is streamed."""

    name: str
    tokenizer: Tokenizer
    tokens: list[int]
    stop: list[str]


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

    def __init__(self, sequences: int, tokens: list[int]) -> None:
        keys = [f"request-{number}#0" for number in range(sequences)]
        size = len(tokens)
        self._steps = [Step([Sampled(key, tokens[step % size]) for key in keys]) for step in range(TOKENS // sequences)]

    async def steps(self) -> AsyncIterator[Step]:
        for step in self._steps:
            yield step


def _request(number: int, stop: list[str]) -> Request:
    stopping = Stopping(max_tokens=TOKENS * 2, stop=stop)
    return Request(f"request-{number}", 0, "gateway-1", number, pack_tokens([1, 2]), 1, Sampling(), stopping, 0, 0)


async def _streamed(case: _Case, engine: _Engine, sequences: int) -> tuple[float, bytes]:
    """Seconds, and the last frame's bytes."""
    bus = _Bus()
    sender = FrameSender(bus, Subjects(), "decode-1", lambda: (1, 1), patience_s=1.0)  # type: ignore[arg-type]
    streams = Streams(engine, sender, case.tokenizer, WorkerMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    for number in range(sequences):
        request = _request(number, case.stop)
        text = TextStream(case.tokenizer, request.stopping, [])
        streams.join(Stream(f"request-{number}#0", request, text, 0, Progress(request)))
    began = time.process_time()
    await streams.pump()
    return time.process_time() - began, bus.last


def _packed(data: bytes, sequences: int) -> float:
    plain = msgpack.unpackb(data)
    began = time.process_time()
    for _ in range(TOKENS // sequences):
        msgpack.packb(plain)
    return time.process_time() - began


def _stepped(inner: tokenizers.Tokenizer, tokens: list[int], sequences: int) -> float:
    decoders = [DecodeStream(skip_special_tokens=True) for _ in range(sequences)]
    size = len(tokens)
    began = time.process_time()
    for step in range(TOKENS // sequences):
        for decoder in decoders:
            decoder.step(inner, tokens[step % size])
    return time.process_time() - began


def _best(measure: Callable[[], float]) -> float:
    """Microseconds per token."""
    return min(measure() for _ in range(TURNS)) / TOKENS * 1e6


def _measured(case: _Case, sequences: int, inner: tokenizers.Tokenizer | None) -> Row:
    engine, last = _Engine(sequences, case.tokens), b""

    def turn() -> float:
        nonlocal last
        seconds, last = asyncio.run(_streamed(case, engine, sequences))
        return seconds

    name, value = f"step to frame, {sequences} streams, {case.name}", _best(turn)
    if inner is None:
        return Row(name, value, "µs/token", "msgpack alone", _best(lambda: _packed(last, sequences)))
    return Row(name, value, "µs/token", "DecodeStream alone", _best(lambda: _stepped(inner, case.tokens, sequences)))


def _cases() -> list[tuple[_Case, tokenizers.Tokenizer | None]]:
    found: list[tuple[_Case, tokenizers.Tokenizer | None]] = [
        (_Case(f"byte tokens, {name}{more}", ByteTokenizer(), list(text.encode()), stop), None)
        for more, stop in (("", []), (", stop strings", STOPS))
        for name, text in (("words", WORDS), ("many scripts", SCRIPTS))
    ]
    path = _real()
    if path is None:
        return found
    real, inner = HubTokenizer(path), tokenizers.Tokenizer.from_file(str(path))
    texts = {"words": real.encode(WORDS, special=False), "many scripts": real.encode(SCRIPTS, special=False)}
    texts["lone bytes"] = [inner.token_to_id(f"<0x{byte:02X}>") for byte in SCRIPTS.encode()]  # what no token spells
    return found + [
        (_Case(f"{MODEL}, {name}{more}", real, tokens, stop), inner)
        for more, stop in (("", []), (", stop strings", STOPS))
        for name, tokens in texts.items()
    ]


def _real() -> Path | None:
    """The tokenizer of a model; none where the model is not there."""
    try:
        return resolve("sim", "sim", {"tokenizer": MODEL}).tokenizer_path
    except ConfigError:
        return None


def rows() -> list[Row]:
    """Measure."""
    cases = _cases()
    made = [_measured(case, sequences, inner) for sequences in STREAMS for case, inner in cases]
    return made + decode_uptime.rows()
