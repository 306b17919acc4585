"""What is asked of a server, and what came of it: the client's figures, and the CPU that the server took meanwhile."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from bench.gateway_clients import cpu_s


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask, of whom."""

    port: int
    model: str
    streams: int
    answer: int  # tokens
    prompts: list[str]

    def request(self, prompt: str) -> bytes:
        """The request's bytes."""
        body = json.dumps(
            {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": self.answer,
                "temperature": 0.0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one load. CPU is per token, in microseconds."""

    tokens_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    tpot_p99_ms: float
    front_us: float = 0.0
    all_us: float = 0.0

    def line(self) -> str:
        """For whoever waits."""
        return (
            f"{self.tokens_s:.0f} tokens/s, first token {self.ttft_p50_ms:.0f} / {self.ttft_p99_ms:.0f} ms, between "
            f"{self.tpot_p50_ms:.1f} / {self.tpot_p99_ms:.1f} ms, CPU {self.front_us:.0f} of {self.all_us:.0f} us"
        )


async def measured(load: Load, front: int, pids: list[int]) -> Measured:
    """Run the client as a process, and count the CPU of those others meanwhile. Raises RuntimeError."""
    before = {pid: cpu_s(pid) for pid in pids}
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.vllm.client", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await client.communicate(json.dumps(asdict(load)).encode())
    if client.returncode:
        raise RuntimeError(f"the client failed at {load.streams} streams")
    used = {pid: (cpu_s(pid) - was) * 1e6 / (len(load.prompts) * load.answer) for pid, was in before.items()}
    figures: dict[str, Any] = {**json.loads(printed), "front_us": used[front], "all_us": sum(used.values())}
    return Measured(**figures)
