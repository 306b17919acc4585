"""vLLM's options as Baton has them: the table [scenario.<name>.engine_options] as a checked value. Imports no vLLM.

What engines have in common has one name here and in the torch engine; whatever else vLLM takes goes through `args`,
by vLLM's own names (the fields of AsyncEngineArgs).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.config.reader import Reader, setting
from shared.errors import ConfigError

DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
MEBIBYTE: Final = 1 << 20
ONE_PROCESS: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""EngineCore computes itself. A rank beside it would wait for each step, and EngineCore for its end, by asking without
a pause for a second: on a CPU they take the cores from those who compute."""
OURS: Final = frozenset(
    {
        "model",
        "kv_transfer_config",
        "logits_processors",
        "skip_tokenizer_init",
        "data_parallel_size",
        "speculative_config",
        "logprobs_mode",
        "disable_log_stats",
    }
)
"""Arguments that the relay depends on: a table of `args` must not have them."""

HARMFUL: Final = {
    "enable_kv_nz": "it stores the KV in a form that depends on the device",
    "enable_reduce_sample": "each rank would see only a part of the logits, and our sampler draws from them",
    "recompute_scheduler_enable": "it ends requests that the relay would have continued",
}
"""Options of vllm-ascend that do not go with the relay."""


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Every key has a default; where it is 0 or empty, vLLM decides."""

    dtype: str = setting("auto", choices=DTYPES)  # of weights and activations
    quantization: str = setting("")  # of the weights, by vLLM's names: fp8, awq, gptq, compressed-tensors ...
    block_size: int = setting(0, between=(0, 1024))  # tokens; Ascend makes it 128
    num_blocks: int = setting(0, between=(0, 1 << 31))
    kv_cache_mb: int = setting(0, between=(0, 1 << 24))  # of each rank; on CPU 512 unless said
    max_num_seqs: int = setting(64, between=(1, 65_536))
    max_model_len: int = setting(0, between=(0, 1 << 31))
    prefill_chunk: int = setting(0, between=(0, 1 << 20))  # most tokens of a step
    enable_prefix_cache: bool = setting(default=True)
    tensor_parallel_size: int = setting(1, between=(1, 1024))
    pipeline_parallel_size: int = setting(1, between=(1, 1024))
    enforce_eager: bool = setting(default=False)  # no compilation, no graphs: starts sooner, runs slower
    trust_remote_code: bool = setting(default=False)  # code that comes with the model runs in the worker
    lora: str = setting("")  # directory of a LoRA adapter that all requests use
    threads: int = setting(0, between=(0, 1024))  # of each rank on CPU
    start_s: float = setting(900.0, between=(1.0, 86_400.0))  # within which it must have loaded
    args: dict[str, Any] = field(default_factory=dict)  # by vLLM's own names

    @property
    def ranks(self) -> int:
        """Of a worker."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


def read_options(table: Mapping[str, Any]) -> VllmOptions:
    """The options in `table`. Raises ConfigError with every mistake."""
    reader = Reader()
    options = reader.section(VllmOptions, dict(table), "engine_options")
    faults = list(reader.faults)
    if options is not None:
        more = options.args.get("additional_config")
        faults += [
            f"engine_options.args.additional_config.{name}: {why}; remove it"
            for name, why in HARMFUL.items()
            if isinstance(more, dict) and more.get(name)
        ]
        faults += [
            f"engine_options.args.{name}: the relay depends on it and sets it itself; remove it"
            for name in sorted(OURS & options.args.keys())
        ]
    if faults or options is None:
        raise ConfigError(faults)
    return options


def engine_args(options: VllmOptions, directory: Path, platform: str) -> dict[str, Any]:
    """What AsyncEngineArgs gets of them. `platform` is vLLM's name of its device type: cpu, cuda, npu ..."""
    kv_cache_mb = options.kv_cache_mb
    if platform == "cpu" and not kv_cache_mb:
        kv_cache_mb = 512  # vLLM would want nearly all of the machine's memory, also where `num_blocks` says how much
    wanted: dict[str, Any] = {
        "quantization": options.quantization or None,
        "block_size": options.block_size or None,
        "num_gpu_blocks_override": options.num_blocks + 1 if options.num_blocks else None,  # the first is vLLM's own
        "kv_cache_memory_bytes": kv_cache_mb * MEBIBYTE or None,
        "max_model_len": options.max_model_len or -1,  # -1: what the KV cache holds, the model's context at most
        "max_num_batched_tokens": options.prefill_chunk or None,
        "max_lora_rank": _rank(options),
        "distributed_executor_backend": ONE_PROCESS if platform == "cpu" and options.ranks == 1 else None,
    }
    return {
        "model": str(directory),
        "dtype": options.dtype,
        "max_num_seqs": options.max_num_seqs,
        "enable_prefix_caching": options.enable_prefix_cache,
        "tensor_parallel_size": options.tensor_parallel_size,
        "pipeline_parallel_size": options.pipeline_parallel_size,
        "enforce_eager": options.enforce_eager,
        "trust_remote_code": options.trust_remote_code,
        "enable_lora": bool(options.lora),
        **{name: value for name, value in wanted.items() if value is not None},
        **options.args,
    }


def _rank(options: VllmOptions) -> int | None:
    """Of the LoRA adapter, which vLLM wants to know beforehand. Raises ConfigError."""
    if not options.lora:
        return None
    from shared.engine.vllm_engine.lora import rank_of  # noqa: PLC0415

    return rank_of(Path(options.lora))
