"""What is measured: vLLM's own server, and clusters of ours. Each is one context; in it the server stands ready."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.gateway_house import ended
from bench.vllm.plan import Plan
from tests.faults.cluster import Cluster
from tests.servers import free_port
from tests.vllm.house import vllm_cluster

READY_S: Final = 400.0
MEBIBYTE: Final = 1 << 20
QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class Served:
    """Something that answers."""

    port: int
    model: str  # as requests name it
    front: int  # the process that clients speak to
    roots: list[int]  # processes whose descendants do the rest

    def pids(self) -> list[int]:
        """All of its processes."""
        processes = [psutil.Process(pid) for pid in self.roots]
        return [*self.roots, *(child.pid for one in processes for child in one.children(recursive=True))]


Server = Callable[[Plan, Path, Path], AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def vllm_server(plan: Plan, model: Path, folder: Path) -> AsyncIterator[Served]:
    """The OpenAI server of vLLM, as it is."""
    port = free_port()
    asked: dict[str, Any] = {
        "model": model,
        "served-model-name": "chat",
        "host": "127.0.0.1",
        "port": port,
        "dtype": plan.dtype,
        "max-model-len": plan.context,
        "max-num-seqs": plan.most,
        "kv-cache-memory-bytes": plan.kv_cache_mb * MEBIBYTE,
    }
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    argv += [text for key, value in asked.items() for text in (f"--{key}", str(value))]
    environ = {**os.environ, **QUIET, "OMP_NUM_THREADS": str(plan.threads)}
    log = folder / "server.log"
    with _running(argv, environ, log) as process:
        await asyncio.to_thread(_until_answers, process, f"http://127.0.0.1:{port}/health", log)
        yield Served(port, "chat", process.pid, [process.pid])


def relay(engine: str) -> Server:
    """A gateway, a prefill and a decode on this engine, with NATS, Redis and a monitor."""

    @asynccontextmanager
    async def server(plan: Plan, model: Path, folder: Path) -> AsyncIterator[Served]:
        options = {
            "dtype": plan.dtype,
            "threads": plan.threads,
            "kv_cache_mb": plan.kv_cache_mb,
            "max_num_seqs": plan.most,
            "max_model_len": plan.context,
            **({"enforce_eager": True} if engine == "vllm" else {}),
        }
        slots = min(plan.most, 64)  # as many prompts of the plan's length as vLLM puts into two of its steps
        async with vllm_cluster(
            folder, model, engine=engine, decodes=1, options=options, prefill_slots=slots
        ) as cluster:
            yield _served(cluster)

    return server


def _served(cluster: Cluster) -> Served:
    servers = [child.pid for child in psutil.Process().children() if child.name() in ("nats-server", "valkey-server")]
    roots = [process.pid for process in cluster.everyone] + servers
    port = int(cluster.url().rsplit(":", 1)[1])
    return Served(port, "chat", cluster.processes["gateway-1"].pid, roots)


@contextmanager
def _running(argv: list[str], environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, ended(subprocess.Popen(argv, stdout=file, stderr=file, env=environ)) as process:
        yield process


def _until_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once it does. Raises RuntimeError."""
    deadline = time.monotonic() + READY_S
    while True:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310  our own server
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"vLLM's server does not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


SERVERS: Final[dict[str, Server]] = {
    "vllm": vllm_server,
    "baton on vllm": relay("vllm"),
    "baton on torch": relay("torch"),
}
