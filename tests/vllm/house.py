"""Whole clusters whose engines are vLLM: the cluster of the fault tests, told of another engine.

Owns how long such a cluster may take, and which processes are vLLM's. Judges nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from shared.messages import Role
from tests.faults.cluster import Cluster
from tests.faults.cluster_process import Process
from tests.processes import alive

READY_S: Final = 600.0
"""Several engines start at once, and each imports vLLM twice. For a hang, never for a verdict."""
TORCH: Final[dict[str, Any]] = {"dtype": "float32", "kv_cache_mb": 64, "max_model_len": 2048, "max_num_seqs": 32}
VLLM: Final[dict[str, Any]] = {
    **TORCH,
    "block_size": 32,
    "enforce_eager": True,
    "threads": 1,
    "args": {
        "distributed_executor_backend": "mp"
    },  # with a rank of its own, as on devices; the suite of engines has none
}
OPTIONS: Final = {"torch": TORCH, "vllm": VLLM}
LEASE_S: Final = 10.0
"""Where four engines start at once on two cores, Redis waits for its turn too."""
GONE_S: Final = 30.0
BUSY_S: Final = 120.0


class VllmCluster(Cluster):
    """It takes its time, and its workers have processes of their own."""

    async def until_ready(self, name: str, seconds: float = READY_S) -> None:
        """Wait until an instance says that it is ready."""
        await super().until_ready(name, seconds)

    async def worker(self, role: Role, name: str) -> Process:
        """Start one more and wait until it is there."""
        process = await self.start(role, name)
        await self.until_ready(name)
        return process

    def living(self, role: Role) -> list[Process]:
        """Those of a role that run."""
        return [process for process in self.processes.values() if process.role is role and process.alive]


@asynccontextmanager
async def vllm_cluster(
    folder: Path,
    model: Path | str,
    *,
    engine: str = "vllm",
    prefills: int = 1,
    decodes: int = 2,
    standbys: int = 0,
    options: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[VllmCluster]:
    """Start a cluster on this model and wait until it would serve; at the end no process of it is left.

    `options`: of the engine, instead of those above; `more`: of the scenario.
    """
    scenario = {
        "model": str(model),
        "engine": engine,
        "prefill": prefills,
        "decode": decodes,
        "ttft_slo_ms": 60_000,
        "queue_timeout_s": 300,
        "engine_options": OPTIONS[engine] if options is None else options,
        **more,
    }
    config = {"monitor": {"port": 0}, "fleet": {"lease_ttl_s": LEASE_S}, "scenario": {"chat": scenario}}
    made = VllmCluster(folder, config)
    counts = {Role.MONITOR: 1, Role.PREFILL: prefills, Role.DECODE: decodes, Role.STANDBY: standbys, Role.GATEWAY: 1}
    try:
        await made.open(counts, {})
        yield made
    finally:
        of_engines = [pid for process in made.everyone for pid in descendants(process)]
        await made.close()
        await until_gone(of_engines)


def descendants(process: Process) -> list[int]:
    """The processes of a worker's engine; none of one that has ended."""
    try:
        return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def engine_core(process: Process) -> int:
    """Its EngineCore, the process that the worker itself started and that started the ranks."""
    children = psutil.Process(process.pid).children()
    named = [child.pid for child in children if "EngineCore" in " ".join([child.name(), *child.cmdline()])]
    assert len(named) == 1, [(child.pid, child.name(), child.cmdline()) for child in children]
    return named[0]


async def until_gone(pids: list[int], seconds: float = GONE_S) -> None:
    """Wait for the end of processes that are nobody's children any more."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"left behind: {[(pid, psutil.Process(pid).cmdline()) for pid in left]}"
        await asyncio.sleep(0.1)


async def busiest(fleet: VllmCluster, names: list[str], streams: int) -> str:
    """Wait until one of these decodes so many streams; its name."""
    deadline = time.monotonic() + BUSY_S
    while True:
        held = {name: (await fleet.metrics(name))["baton_worker_streams"] for name in names}
        if max(held.values()) >= streams:
            return max(held, key=lambda name: held[name])
        assert time.monotonic() < deadline, f"too few streams: {held}"
        await asyncio.sleep(0.02)
