"""The relay as something to measure: a gateway, a prefill and decodes, with NATS, Redis and a monitor."""

import asyncio
import http
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from bench.load import Served
from shared.messages import Role
from tests.faults.cluster import Cluster
from tests.vllm.house import LEASE_S, READY_S, VllmCluster, descendants, until_gone

SERVERS_OF_OURS: Final = ("nats-server", "valkey-server")
PATIENT: Final = {"ttft_slo_ms": 60_000, "queue_timeout_s": 300}
"""A benchmark's requests wait for as long as it takes."""


class _Cluster(VllmCluster):
    """The tests keep engines to one thread each; here they have what they take by themselves."""

    limits = {}


async def _served_alone(cluster: Cluster) -> None:
    """Wait until decodes without a prefill serve; the gateway calls itself ready only with both."""
    asked = {"model": "chat", "prompt": "a", "max_tokens": 1}
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with suppress(aiohttp.ClientConnectionError):  # it does not listen yet
            async with cluster.http.post(f"{cluster.url()}/v1/completions", json=asked) as answer:
                if answer.status == http.HTTPStatus.OK:
                    return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"no decode serves by itself: {cluster.tail('gateway-1')}")


@asynccontextmanager
async def relay(
    folder: Path,
    scenario: Mapping[str, Any],
    *,
    prefills: int = 1,
    decodes: int = 1,
    kv: Mapping[str, Any] | None = None,
) -> AsyncIterator[Served]:
    """Start it and wait until it serves. `scenario` and `kv`: these tables of the configuration."""
    config = {
        "monitor": {"port": 0},
        "fleet": {"lease_ttl_s": LEASE_S},
        "kv": dict(kv or {}),
        "scenario": {"chat": {**PATIENT, **scenario}},
    }
    cluster = _Cluster(folder, config)
    counts = {Role.MONITOR: 1, Role.PREFILL: prefills, Role.DECODE: decodes, Role.STANDBY: 0, Role.GATEWAY: 1}
    try:
        await cluster.open(counts, {})
        await (cluster.ready() if prefills else _served_alone(cluster))
        servers = [one.pid for one in psutil.Process().children() if one.name() in SERVERS_OF_OURS]
        roots = [process.pid for process in cluster.everyone] + servers
        port = int(cluster.url().rsplit(":", 1)[1])
        yield Served(port, "chat", cluster.processes["gateway-1"].pid, roots)
    finally:
        of_engines = [pid for process in cluster.everyone for pid in descendants(process)]
        await cluster.close()
        await until_gone(of_engines)
