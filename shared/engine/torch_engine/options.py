"""The torch engine's own options: the table [scenario.<name>.engine_options] as a checked value. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.config.reader import Reader, setting
from shared.engine.torch_engine.cpu.cores import no_cores
from shared.errors import ConfigError

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Every key has a default that serves the default model on a small machine."""

    device: str = setting("cpu")  # as `device.py` knows it: cpu, cuda, cuda:1, npu ...
    dtype: str = setting("auto", choices=DTYPES)  # of weights, activations and KV; auto is the device's own choice
    quantization: str = setting("none", choices=("none", "int8", "fp8"))  # of the weights
    block_size: int = setting(16, between=(1, 1024))  # tokens
    num_blocks: int = setting(0, between=(0, 1 << 31))  # 0: as many as kv_cache_mb holds
    kv_cache_mb: int = setting(512, between=(1, 1 << 24))
    max_num_seqs: int = setting(64, between=(1, 4096))
    max_model_len: int = setting(0, between=(0, 1 << 31))  # 0: the model's own context, or what the cache holds
    prefill_chunk: int = setting(512, between=(1, 1 << 20))  # prompt tokens per step
    enable_prefix_cache: bool = setting(default=True)
    cuda_graphs: bool = setting(default=True)  # a decoding step is launched as a whole; no effect elsewhere
    threads: int = setting(0, between=(0, 1024))  # 0: one for each of `cpus`, else torch's own choice
    cpus: str = setting("", check=no_cores)  # cores that the engine's threads are held on, as "0-7,16"; empty: all
    tensor_parallel: int = setting(1, between=(1, 64))  # ranks that share each layer, on devices side by side
    rank_timeout_s: int = setting(60, between=(1, 86_400))  # of ranks: a step that takes longer hangs


def read_options(table: Mapping[str, Any]) -> EngineOptions:
    """The options in `table`. Raises ConfigError with every mistake."""
    reader = Reader()
    options = reader.section(EngineOptions, dict(table), "engine_options")
    if reader.faults or options is None:
        raise ConfigError(reader.faults)
    return options
