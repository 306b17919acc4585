"""A decode engine in a process of its own: reads a job, prints the tokens. Run as `python -m tests.torch_child JOB`.

The job is MessagePack: directory, and of each sequence its tokens, prompt_tokens, max_tokens and KV bytes.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgpack

from shared.engine.torch_engine.engine import TorchEngine
from tests.torch_rig import sequence


async def decode(job: dict[str, Any]) -> dict[str, list[int]]:
    """The tokens that follow, by key; all sequences run in one batch."""
    engine = TorchEngine(Path(job["directory"]), job["options"])
    await engine.start()
    result: dict[str, list[int]] = {}
    try:
        for key, one in job["sequences"].items():
            tokens = one["tokens"]
            asked = sequence(key, tokens, one["prompt_tokens"], max_tokens=one["max_tokens"])
            await engine.insert(asked, len(tokens) - 1, memoryview(one["kv"]))
            result[key] = []
        left = set(result)
        steps = engine.steps()
        while left:
            step = await anext(steps)
            if step.failed:
                raise RuntimeError(str(step.failed))
            for sampled in step.sampled:
                result[sampled.key].append(sampled.token_id)
                if sampled.finish is not None:
                    left.remove(sampled.key)
        await steps.aclose()  # type: ignore[attr-defined]
    finally:
        await engine.close()
    return result


if __name__ == "__main__":
    job = msgpack.unpackb(Path(sys.argv[1]).read_bytes())
    print(json.dumps(asyncio.run(decode(job))))  # noqa: T201
