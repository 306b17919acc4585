"""vLLM's EngineCore: started in processes of its own, sent requests, read step by step.

Owns the core's client and the way vLLM is set up for the relay. It takes the core's outputs as they come, one message
per engine step, and not AsyncLLM's: that would spend a task, a detokeniser and two queues on every stream, where a
worker wants the step as a whole. Must not know sequences.
"""

import logging
import multiprocessing
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from shared.engine.vllm_engine.options import VllmOptions, engine_args
from shared.engine.vllm_engine.platform import check
from shared.errors import ConfigError, EngineFailed

log = logging.getLogger(__name__)

ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several workers of one machine would bind to the same cores
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # it has no logits processors of the kind that our sampler is
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""What vLLM is told by its environment, where the user has not said otherwise."""
CLOSE_S: Final = 20.0
"""How long EngineCore and ranks may take to stop before they are killed."""


def prepare(options: VllmOptions) -> None:
    """Import vLLM, which takes ten seconds. Raises ConfigError when it is not there, or one that we do not know."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", str(int(options.start_s)))
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    check(os.environ)
    if os.environ["VLLM_USE_V2_MODEL_RUNNER"] != "0":
        raise ConfigError(
            ["VLLM_USE_V2_MODEL_RUNNER: vLLM's second model runner cannot draw as the relay does; unset it"]
        )
    import vllm  # noqa: F401, PLC0415


def give_up() -> None:
    """End a start that nobody waits for any more: without its processes it fails at once."""
    for child in multiprocessing.active_children():  # a worker has none but vLLM's
        child.kill()


class Core:
    """A started EngineCore. Made in a thread, for that takes from seconds to minutes; used on the event loop."""

    def __init__(self, options: VllmOptions, directory: Path, connector: dict[str, Any]) -> None:
        """`connector` is vLLM's kv_transfer_config. Raises ConfigError or EngineFailed."""
        from vllm import AsyncEngineArgs  # noqa: PLC0415
        from vllm.config import KVTransferConfig  # noqa: PLC0415
        from vllm.platforms import current_platform  # noqa: PLC0415
        from vllm.usage.usage_lib import UsageContext  # noqa: PLC0415
        from vllm.v1.engine.core_client import EngineCoreClient  # noqa: PLC0415
        from vllm.v1.executor import Executor  # noqa: PLC0415

        self.platform = str(current_platform.device_type)
        arguments = engine_args(options, directory, self.platform)
        try:
            self.config: Any = AsyncEngineArgs(
                **arguments,
                skip_tokenizer_init=True,
                kv_transfer_config=KVTransferConfig(**connector),
                logits_processors=["shared.engine.vllm_engine.inside.sampler:BatonSampler"],
            ).create_engine_config(UsageContext.ENGINE_CONTEXT)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ConfigError([f"vLLM does not take these engine_options: {_short(error)}"]) from error
        try:
            self._client: Any = EngineCoreClient.make_async_mp_client(
                self.config, Executor.get_class(self.config), log_stats=True
            )
        except Exception as error:
            raise EngineFailed(f"vLLM did not start: {_short(error)}", fatal=True) from error

    @property
    def context(self) -> int:
        """Tokens of a sequence, prompt and generated together."""
        return int(self.config.model_config.max_model_len)

    @property
    def vocabulary(self) -> int:
        """Tokens that may come in, and out."""
        return int(self.config.model_config.get_vocab_size())

    @property
    def alive(self) -> bool:
        """Whether EngineCore has not been seen to die."""
        return not self._client.resources.engine_dead

    async def add(self, request: Any) -> None:  # noqa: ANN401  vLLM's EngineCoreRequest
        """Send a request. Raises EngineFailed when the engine is dead."""
        try:
            await self._client.add_request_async(request)
        except Exception as error:
            raise EngineFailed(f"vLLM took no request: {_short(error)}", fatal=True) from error

    async def abort(self, ids: Iterable[str]) -> None:
        """Have requests ended; unknown ones are fine."""
        try:
            await self._client.abort_requests_async(list(ids))
        except Exception as error:  # noqa: BLE001  a dead core is told by `outputs`
            log.debug("vLLM took no abort", extra={"error": _short(error)})

    async def outputs(self) -> Any:  # noqa: ANN401  vLLM's EngineCoreOutputs
        """What the next engine step brought. Raises EngineFailed when the engine has died."""
        try:
            return await self._client.get_output_async()
        except Exception as error:
            raise EngineFailed(f"vLLM died: {_short(error)}", fatal=True) from error

    def close(self) -> None:
        """Stop EngineCore and its ranks. Blocks; idempotent."""
        try:
            self._client.shutdown(timeout=CLOSE_S)
        except Exception:  # it may be dead; its processes die with this one in any case
            log.warning("vLLM did not stop as it should", exc_info=True)


def _short(error: Exception) -> str:
    """The first line that says something, of bounded length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300]
