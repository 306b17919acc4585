"""vLLM's own server, and the list of all that can be measured."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from bench.gateway_house import ended
from bench.load import Served
from bench.vllm.plan import Plan
from bench.vllm.relay import Server, baton
from tests.servers import free_port

READY_S: Final = 900.0
"""It compiles at first."""
MEBIBYTE: Final = 1 << 20
QUIET: Final = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


def vllm(*flags: str, bind: str = "auto") -> Server:
    """The OpenAI server of vLLM, as it is. `bind`: the cores of its threads; `all`, one thread for each core."""

    @asynccontextmanager
    async def server(plan: Plan, model: Path, folder: Path) -> AsyncIterator[Served]:
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
        argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
        argv += [text for key, value in asked.items() for text in (f"--{key}", str(value))]
        log = folder / "server.log"
        with _running(argv, {**os.environ, **QUIET, **_threads(plan, bind)}, log) as process:
            await asyncio.to_thread(_until_answers, process, f"http://127.0.0.1:{port}/health", log)
            yield Served(port, "chat", process.pid, [process.pid])

    return server


def _threads(plan: Plan, bind: str) -> dict[str, str]:
    """What vLLM reads of threads; as it is by default it leaves one core to its other process."""
    if plan.threads:
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(plan.threads)}
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    return {"VLLM_CPU_OMP_THREADS_BIND": cores if bind == "all" else bind}


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
    "vllm": vllm(),
    "vllm, all cores": vllm(bind="all"),
    "vllm, eager": vllm("--enforce-eager"),
    "vllm, eager, all cores": vllm("--enforce-eager", bind="all"),
    "baton on vllm": baton("vllm"),
    "baton on torch": baton("torch"),
    "baton on torch, 1 thread": baton("torch", threads=1),
    "baton on torch, int8": baton("torch", quantization="int8"),
    "baton on torch, int8, 1 thread": baton("torch", quantization="int8", threads=1),
}
"""Those of vLLM alone are one baseline: at each number of streams the fastest of them counts. One thread for each
engine is what `baton up` gives to two workers on two cores; a model of some size decodes faster on both."""
