"""Starts what the gateway's benchmark needs: NATS, Redis, the fleet's stand-in, a collector of traces, the gateway.

Everything that a gateway does in production is on: keys, limits, metrics, the access log, traces sampled at 1 %.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.config import RedisSettings
from shared.tenancy.api_key import make
from shared.tenancy.register import open_register
from tests.servers import NatsServer, RedisServer, free_port

PART = [sys.executable, "-m", "bench.gateway_parts"]
CONFIG = """
[gateway]
port = {port}
auth = "keys"
[nats]
url = "{nats}"
[redis]
url = "{redis}"
[scenario.chat]
model = "sim"
engine = "sim"
[tenant.bench]
requests_per_minute = 100000000
tokens_per_minute = 100000000
concurrent_streams = 100000
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A running gateway, and who feeds it."""

    pid: int
    port: int
    source: int  # its process
    key: str  # an API key

    def client(self, part: str, **options: object) -> dict[str, float]:
        """Run one client against it, to its end."""
        return run_part(part, port=self.port, pid=self.pid, source=self.source, key=self.key, **options)


def run_part(part: str, **options: object) -> dict[str, float]:
    """Run a part that ends by itself; what it prints."""
    done = subprocess.run([*PART, part, *_flags(options)], check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(done.stdout)
    if result.get("errors") or result.get("lost"):
        raise RuntimeError(f"the client {part} saw errors: {result}")
    return result


@contextlib.contextmanager
def serving_part(part: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part that serves until the context ends."""
    with ended(subprocess.Popen([*PART, part, *_flags(options)])) as process:
        if "port" in options:
            wait_for_port(process, int(str(options["port"])))
        yield process


@contextlib.contextmanager
def gateway(folder: Path, *, rate: float = 50.0) -> Iterator[Measured]:
    """Run servers, source, collector and gateway; each stream gets `rate` tokens/s."""
    nats, redis = NatsServer(folder), RedisServer(folder)
    port, collector = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        for server in (nats, redis):
            server.start()
            stack.callback(server.kill)
        url = f"nats://{nats.user}:{nats.password}@127.0.0.1:{nats.port}"
        config = folder / "baton.toml"
        config.write_text(CONFIG.format(port=port, nats=url, redis=redis.settings().url))
        source = stack.enter_context(serving_part("source", nats=url, rate=rate))
        stack.enter_context(serving_part("worker", port=collector))
        log = stack.enter_context((folder / "gateway.log").open("wb"))
        command = [*_PROFILER, "-m", "services.gateway", "--config", str(config)]
        process = subprocess.Popen([sys.executable, *command], stderr=log, env=os.environ | _tracing(collector))
        stack.enter_context(ended(process))
        wait_for_answer(process, f"http://127.0.0.1:{port}/readyz", folder / "gateway.log")
        yield Measured(process.pid, port, source.pid, asyncio.run(_key(redis.settings())))


async def _key(settings: RedisSettings) -> str:
    key, secret = make("bench", [], now=int(time.time()))
    async with open_register(settings) as register:
        await register.create(key)
    return secret


_PROFILER = os.environ.get("BENCH_GATEWAY_PROFILER", "").split()
"""Arguments of Python before the gateway's own, such as `-m cProfile -o FILE`."""


def _tracing(collector: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }


def _flags(options: dict[str, object]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        if value is not False:
            flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return flags


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once a part listens."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.05)


def wait_for_answer(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once a server answers with 200."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310  our own server
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} does not answer: {log.read_text()[-2000:]}")
        time.sleep(0.1)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with the context, by force where it does not go."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
