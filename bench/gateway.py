"""What a streamed token costs the gateway: its process's CPU per token at 64 and 256 streams of 50 tokens/s.

The gateway and nats-server are real; tokens come from a source that publishes frames as decode workers do, so that
nothing but the gateway is measured. The baseline sends one event per token and stream and does nothing else: the
kernel's floor. Both run here, one after the other, because machines differ.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.table import Row
from tests.servers import NatsServer, RedisServer, free_port

STREAMS = (64, 256)
TURNS = 3
SECONDS = float(os.environ.get("BENCH_GATEWAY_SECONDS", "4"))
PART = [sys.executable, "-m", "bench.gateway_parts"]
CONFIG = """
[gateway]
port = {port}
[nats]
url = "{nats}"
[redis]
url = "{redis}"
[scenario.chat]
model = "sim"
engine = "sim"
"""


def rows() -> list[Row]:
    """Measure; each figure beside the floor of the same run. The best of several turns, since machines are shared."""
    made = []
    with tempfile.TemporaryDirectory() as name, _gateway(Path(name)) as (process, port, _):
        for streams in STREAMS:
            turns = [(_loaded(process, port, streams), _floor(streams)) for _ in range(TURNS)]
            got, least = min((got for got, _ in turns), key=lambda one: one["cpu_us"]), min(least for _, least in turns)
            what = f"gateway CPU per token, {streams} streams"
            made.append(Row(what, got["cpu_us"], "us", "one send per token", least))
            made.append(Row(f"token travel p50, {streams} streams", got["p50_ms"], "ms", "its p99", got["p99_ms"]))
    return made


def _loaded(process: subprocess.Popen[bytes], port: int, streams: int) -> dict[str, float]:
    got = _part("load", "--port", port, "--pid", process.pid, "--streams", streams, "--seconds", SECONDS)
    if got["errors"] or got["lost"]:
        raise RuntimeError(f"the load client saw errors: {got}")
    return got


@contextlib.contextmanager
def _gateway(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, str]]:
    """Run servers, source and gateway; yields the gateway's process, its port and the NATS URL."""
    nats, redis = NatsServer(folder), RedisServer(folder)
    port = free_port()
    with contextlib.ExitStack() as stack:
        for server in (nats, redis):
            server.start()
            stack.callback(server.kill)
        url = f"nats://{nats.user}:{nats.password}@127.0.0.1:{nats.port}"
        config = folder / "baton.toml"
        config.write_text(CONFIG.format(port=port, nats=url, redis=redis.settings().url))
        source = subprocess.Popen([*PART, "source", "--nats", url])
        stack.callback(_end, source)
        with (folder / "gateway.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "services.gateway", "--config", config], stderr=log)
        stack.callback(_end, process)
        _ready(process, port, folder / "gateway.log")
        yield process, port, url


def _ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the gateway does not get ready: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _part(part: str, *options: object) -> dict[str, float]:
    done = subprocess.run([*PART, part, *map(str, options)], check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _floor(streams: int) -> float:
    port = free_port()
    reader = subprocess.Popen([*PART, "sink", "--port", str(port)])
    try:
        time.sleep(1.0)
        return _part("floor", "--port", port, "--streams", streams, "--seconds", SECONDS)["cpu_us"]
    finally:
        _end(reader)
