"""What the gateway costs, with everything on: keys, limits, metrics, access log, traces sampled at 1 %.

The gateway, nats-server and Redis are real; tokens come from a source that publishes frames as decode workers do, so
that nothing but the gateway is measured. Each figure stands beside the least that any server must do for it, measured
in the same run between the turns: one bare `send` per token, a fixed reply per request, a bare connection. Of several
turns the best counts, because what else the machine does only ever adds.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.gateway_house import Measured, gateway, run_part, serving_part
from bench.table import Row
from tests.servers import free_port

STREAMS = (64, 256, 1024)
TURNS = int(os.environ.get("BENCH_GATEWAY_TURNS", "3"))
SECONDS = float(os.environ.get("BENCH_GATEWAY_SECONDS", "3"))
CLIENTS = 16
"""That ask for short answers at once: enough to keep one process busy."""
HELD = 1000
SATURATING = 60.0
"""Tokens/s of each of 1024 streams: more than one process is expected to carry."""

Figures = dict[str, float]


def rows() -> list[Row]:
    """Measure."""
    made = []
    with tempfile.TemporaryDirectory() as name, gateway(Path(name)) as measured:
        for streams in STREAMS:
            made += _streams(measured, streams)
        made += _short(measured)
    with tempfile.TemporaryDirectory() as name, gateway(Path(name), rate=SATURATING) as measured:
        made += _saturated(measured)
    return made + _memory()


def _best(turns: list[Figures]) -> Figures:
    return min(turns, key=lambda one: one["cpu_us"])


def _turns(*measures: Callable[[], Figures]) -> list[Figures]:
    """Measure in turn, several times; the best of each."""
    taken = [[measure() for measure in measures] for _ in range(TURNS)]
    return [_best(list(of_one)) for of_one in zip(*taken, strict=True)]


def _streams(measured: Measured, streams: int) -> list[Row]:
    got, least = _turns(lambda: measured.client("load", streams=streams, seconds=SECONDS), lambda: _floor(streams))
    expected = streams * 50.0
    return [
        Row(f"gateway CPU per token, {streams} streams", got["cpu_us"], "us", "one send per token", least["cpu_us"]),
        Row(f"token travel p50, {streams} streams", got["p50_ms"], "ms", "its p99", got["p99_ms"]),
        Row(f"tokens delivered, {streams} streams", got["tokens_s"], "1/s", "asked of the source", expected),
        Row(f"the source's own CPU, {streams} streams", got["source_cores"], "cores", "a core", 1.0),
    ]


def _floor(streams: int) -> Figures:
    port = free_port()
    with serving_part("sink", port=port):
        return run_part("floor", port=port, streams=streams, seconds=SECONDS)


def _short(measured: Measured) -> list[Row]:
    port = free_port()
    made = []
    with serving_part("reply", port=port) as bare:
        for what, stream in (("whole", False), ("streamed", True)):
            asked = {"streams": CLIENTS, "seconds": SECONDS, "warm": 1, "stream": stream}
            got, least = _turns(
                lambda asked=asked: measured.client("short", **asked),
                lambda asked=asked: run_part("short", port=port, pid=bare.pid, **asked),
            )
            made += [
                Row(
                    f"gateway CPU per request of one token, {what}",
                    got["cpu_us"],
                    "us",
                    "a fixed reply",
                    least["cpu_us"],
                ),
                Row(f"requests of one token, {what}", got["requests_s"], "1/s", "a fixed reply", least["requests_s"]),
            ]
    return made


def _saturated(measured: Measured) -> list[Row]:
    got = measured.client("load", streams=1024, seconds=SECONDS, tokens=4000)
    return [
        Row("one process at saturation", got["tokens_s"], "tokens/s", "asked of the source", 1024 * SATURATING),
        Row("its CPU per token", got["cpu_us"], "us", "a core, per token", 1e6 / got["tokens_s"]),
        Row("its token travel p50", got["p50_ms"], "ms", "its p99", got["p99_ms"]),
    ]


def _memory() -> list[Row]:
    """Hold a thousand connections of each kind, each kind with a fresh process; a few streams before warm it."""
    made = []
    for what, asked in (
        ("per idle connection", {"idle": True}),
        ("per live stream", {"tokens": 4000}),
        ("per live stream of a 4k prompt", {"tokens": 4000, "prompt": 4096}),
    ):
        with tempfile.TemporaryDirectory() as name, gateway(Path(name), rate=4.0) as measured:
            measured.client("load", streams=16, tokens=2, warm=0.5, seconds=1)
            got = measured.client("hold", streams=HELD, warm=4, **asked)
        made.append(Row(f"gateway memory {what}", got["kb"], "KB", "a bare connection", _bare_connection()))
    return made


def _bare_connection() -> float:
    port = free_port()
    with serving_part("reply", port=port) as bare:
        return run_part("hold", port=port, pid=bare.pid, streams=HELD, idle=True, warm=0.5)["kb"]
