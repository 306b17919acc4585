"""Ten thousand clients that vanish at random points leave nothing behind, in any process.

The whole cluster of `baton up` on the sim engine: a real gateway, prefill, decode, monitor, NATS and Redis. `make test`
runs 500 clients, `make test-all` 10,000.
"""

import asyncio
import os
import secrets
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.e2e.local_cluster import LocalCluster
from tests.e2e.vanishing import Crowd
from tests.faults.leaks import NOTHING

CONFIG = """
[gateway]
max_waiting = 256
[kv]
staging_mb = 4
[scenario.chat]
model = "sim"
engine = "sim"
prefill_slots = 4
queue_timeout_s = 5
[scenario.chat.engine_options]
prefill_ms = [0, 0.02, 2]
decode_step_ms = 2
max_num_seqs = 8
kv_bytes_per_token = 512
max_model_len = 2048
"""
AT_ONCE = 48
ROUNDS = 5
SERVICES = ("gateway", "prefill", "decode")
STEADY = ("baton_instance_tasks", "baton_worker_blocks_free", "process_open_fds")
"""And those that are what they were before, apart from the KV connections, which are kept for the next push."""
PER_LINK = {
    ("prefill", "process_open_fds"): 1,
    ("decode", "process_open_fds"): 2,
    ("decode", "baton_instance_tasks"): 1,
}
"""What one KV connection takes: at decode a task, and by shared memory the sender's buffer as well."""
SLACK_BYTES = 12 << 20
"""By which a process's memory moves for reasons of its own, the staging that it has not touched before included."""
MOST_GROWTH_BYTES = 2048
"""For each client of the later rounds beside that; a leaked record alone takes more."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    config = tmp_path / "baton.toml"
    config.write_text(CONFIG)
    made = LocalCluster(tmp_path, "--config", str(config), "--standby", "0")
    yield made.start()
    made.close()


class Watch:
    """The metrics of the services that carry requests."""

    def __init__(self, cluster: LocalCluster) -> None:
        entries = {role: cluster.instances(role)[0] for role in SERVICES}
        self._urls = {role: f"{one['health_url']}/metrics" for role, one in entries.items()}
        self._processes = {role: psutil.Process(one["pid"]) for role, one in entries.items()}

    def read(self) -> dict[str, dict[str, float]]:
        """Sum each metric of each service over its labels."""
        return {role: _scrape(url) for role, url in self._urls.items()}

    def memory(self) -> dict[str, int]:
        """Resident bytes of each."""
        return {role: process.memory_info().rss for role, process in self._processes.items()}

    def quiet(self, baseline: dict[str, dict[str, float]], seconds: float = 30.0) -> dict[str, dict[str, float]]:
        """Wait until nothing is held and all is as it was; say what is not."""
        deadline = time.monotonic() + seconds
        while True:
            now = self.read()
            left: dict[str, Any] = {
                f"{role} {name}": one[name] for role, one in now.items() for name in NOTHING if one.get(name)
            }
            for role, before in baseline.items():
                for name in STEADY:
                    pair = _own(role, name, before), _own(role, name, now[role])
                    if _worse(name, *pair):
                        left[f"{role} {name}"] = pair
            if not left:
                return now
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.1)


def _own(role: str, name: str, metrics: dict[str, float]) -> float:
    return metrics.get(name, 0.0) - PER_LINK.get((role, name), 0) * metrics.get("baton_worker_kv_links", 0.0)


def _worse(name: str, before: float, now: float) -> bool:
    return now < before if name.endswith("_free") else now > before


def _scrape(url: str) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  our own loopback
        for line in answer.read().decode().splitlines():
            if line and not line.startswith("#"):
                sums[line.split("{")[0].split(" ")[0]] += float(line.rsplit(" ", 1)[1])
    return sums


@pytest.mark.parametrize("clients", [500, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_clients_that_vanish_at_random_points_leave_nothing_behind(cluster: LocalCluster, clients: int) -> None:
    seed = int(os.environ.get("BATON_SEED", secrets.randbits(32)))
    sys.stdout.write(f"BATON_SEED={seed}\n")  # shown when the test fails
    address = urlsplit(cluster.url)
    crowd = Crowd(address.hostname or "", address.port or 0, seed)
    watch, each = Watch(cluster), clients // ROUNDS
    asyncio.run(crowd.come_and_go(range(clients, clients + each), AT_ONCE))  # what is made once is made now
    baseline, memory = watch.quiet({}), []
    crowd.left.clear()
    for first in range(0, clients, each):
        asyncio.run(crowd.come_and_go(range(first, first + each), AT_ONCE))
        after = watch.quiet(baseline)
        memory.append(watch.memory())
    sys.stdout.write(f"{dict(crowd.left)} {memory}\n")
    _phases_were_all_met(crowd.left, after, clients)
    for role in SERVICES:
        rounds = [one[role] for one in memory]
        grown = min(rounds[-2:]) - min(rounds[:2])
        assert grown <= SLACK_BYTES + MOST_GROWTH_BYTES * (ROUNDS - 2) * each, f"{role} grows: {rounds}"
    cluster.until(lambda: _idle(cluster), "`baton status` shows every instance ready and without load")
    assert cluster.chat("hello")["usage"]["completion_tokens"] == 8


def _idle(cluster: LocalCluster) -> bool:
    """As the records say, which each instance writes once a second."""
    return all(one["state"] == "ready" and not one["load"] for one in cluster.status()["instances"])


def _phases_were_all_met(left: Counter[str], after: dict[str, dict[str, float]], clients: int) -> None:
    """The test means something: clients went in every phase, and the workers had to be told."""
    assert left.total() == clients
    for phase in ("while it sent", "before any answer", "amid the stream", "after the answer"):
        assert left[phase] > clients / 50, (phase, left)
    assert after["gateway"]["baton_gateway_withdrawn_total"] > clients / 10
    for role in ("prefill", "decode"):
        assert after[role]["baton_worker_attempt_endings_total"] > clients / 10
