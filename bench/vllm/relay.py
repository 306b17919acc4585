"""The relay, on this engine or that, as one of the servers that are compared."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from bench import relay
from bench.load import Served
from bench.vllm.plan import Plan

Server = Callable[[Plan, Path, Path], AbstractAsyncContextManager[Served]]
"""Of a plan, the model's directory and a folder of its own: the server, which is gone after the context."""
SLOTS: Final = 64
"""As many prompts of the plan's length as vLLM puts into two of its steps, at most."""


def baton(engine: str, **options: object) -> Server:
    """The relay on this engine. `options`: of the engine, beside the plan's."""

    @asynccontextmanager
    async def server(plan: Plan, model: Path, folder: Path) -> AsyncIterator[Served]:
        scenario = {
            "model": str(model),
            "engine": engine,
            "prefill_slots": min(plan.most, SLOTS),
            "engine_options": {**_options(plan, engine), **options},
        }
        async with relay.relay(folder, scenario) as served:
            yield served

    return server


def _options(plan: Plan, engine: str) -> dict[str, object]:
    asked: dict[str, object] = {
        "dtype": plan.dtype,
        "kv_cache_mb": plan.kv_cache_mb,
        "max_num_seqs": plan.most,
        "max_model_len": plan.context,
    }
    if plan.threads:
        asked["threads"] = plan.threads
    if engine == "vllm":  # two engines of vLLM bind their threads to the same cores unless told otherwise
        asked |= {"enforce_eager": True, "threads": plan.threads or max(1, plan.cores // 2)}
    return asked
