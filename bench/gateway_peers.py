"""The same load through other gateways, where they are installed: `python -m bench gateway --peers`.

They stand before a worker that streams over HTTP, as their own workers do, with their defaults: no key, no limit, no
trace. Baton has all of these on. To have them: `pip install vllm-router sglang-router` in an environment of their own,
whose `bin` is put on PATH. One that is not there, or does not start, is told and left out.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.gateway_house import ended, gateway, run_part, serving_part, wait_for_answer
from bench.table import Row
from tests.servers import free_port

PEERS = {
    "vllm-router": ["vllm-router", "--worker-urls", "{worker}", "--host", "127.0.0.1", "--port", "{port}"],
    "sglang-router": [
        "sglang-router",
        "launch",
        "--worker-urls",
        "{worker}",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    ],
}
STREAMS = (64, 256)
TURNS = 2
SECONDS = float(os.environ.get("BENCH_GATEWAY_SECONDS", "3"))


def rows() -> list[Row]:
    """Measure each peer beside Baton, in turn; the best turn of each counts."""
    made: list[Row] = []
    for name, command in PEERS.items():
        if shutil.which(command[0]) is None:
            print(f"{name} is not on PATH and is left out", file=sys.stderr)
            continue
        try:
            made += _beside(name, command)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return made


def _beside(name: str, command: list[str]) -> list[Row]:
    made = []
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder)) as ours, _peer(Path(folder), command) as peer:
        pid, port = peer

        def theirs(part: str, **options: object) -> dict[str, float]:
            return run_part(part, port=port, pid=pid, **options)

        for streams in STREAMS:
            turns = [
                (
                    ours.client("load", streams=streams, seconds=SECONDS),
                    theirs("load", streams=streams, seconds=SECONDS),
                )
                for _ in range(TURNS)
            ]
            mine, other = (min(one, key=lambda got: got["cpu_us"]) for one in zip(*turns, strict=True))
            what = f"{streams} streams"
            made.append(Row(f"gateway CPU per token, {what}", mine["cpu_us"], "us", name, other["cpu_us"]))
            made.append(Row(f"token travel p50, {what}", mine["p50_ms"], "ms", name, other["p50_ms"]))
            made.append(Row(f"token travel p99, {what}", mine["p99_ms"], "ms", name, other["p99_ms"]))
        asked = {"streams": 16, "seconds": SECONDS, "warm": 1}
        turns = [(ours.client("short", **asked), theirs("short", **asked)) for _ in range(TURNS)]
        mine, other = (min(one, key=lambda got: got["cpu_us"]) for one in zip(*turns, strict=True))
        made.append(Row("gateway CPU per request of one token", mine["cpu_us"], "us", name, other["cpu_us"]))
    return made


@contextlib.contextmanager
def _peer(folder: Path, command: list[str]) -> Iterator[tuple[int, int]]:
    """Run a peer and its worker; yields the peer's process and port."""
    behind, port = free_port(), free_port()
    filled = [part.format(worker=f"http://127.0.0.1:{behind}", port=port) for part in command]
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving_part("worker", port=behind))
        log = stack.enter_context((folder / "peer.log").open("wb"))
        process = stack.enter_context(ended(subprocess.Popen(filled, stdout=log, stderr=log)))
        wait_for_answer(process, f"http://127.0.0.1:{port}/v1/models", folder / "peer.log")
        yield process.pid, port
