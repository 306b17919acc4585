"""The options of engine vllm: what is refused, and what vLLM is told."""

import json
from pathlib import Path

import pytest

from shared.engine.vllm_engine import lora
from shared.engine.vllm_engine.options import engine_args, read_options
from shared.errors import ConfigError


def told(platform: str = "cuda", **table: object) -> dict[str, object]:
    return engine_args(read_options(table), Path("/models/m"), platform)


def test_what_is_not_said_is_left_to_vllm() -> None:
    args = told()
    assert args["model"] == "/models/m"
    for name in ("block_size", "num_gpu_blocks_override", "kv_cache_memory_bytes", "quantization"):
        assert name not in args
    assert args["max_model_len"] == -1  # vLLM's word for what fits


def test_on_cpu_it_does_not_take_the_whole_memory() -> None:
    assert told("cpu")["kv_cache_memory_bytes"] == 512 << 20
    assert told("cpu", num_blocks=10)["kv_cache_memory_bytes"] == 512 << 20
    assert told("cpu", kv_cache_mb=64)["kv_cache_memory_bytes"] == 64 << 20


def test_on_cpu_one_rank_is_enginecore_itself() -> None:
    assert "UniProc" in str(told("cpu")["distributed_executor_backend"])
    assert "distributed_executor_backend" not in told("cpu", tensor_parallel_size=2)
    assert "distributed_executor_backend" not in told("cuda")


def test_blocks_are_those_that_sequences_can_use() -> None:
    assert told(num_blocks=10)["num_gpu_blocks_override"] == 11


def test_names_are_vllms_own_where_they_differ() -> None:
    args = told(prefill_chunk=100, enable_prefix_cache=False, args={"seed": 3, "enable_expert_parallel": True})
    assert args["max_num_batched_tokens"] == 100
    assert args["enable_prefix_caching"] is False
    assert (args["seed"], args["enable_expert_parallel"]) == (3, True)


@pytest.mark.parametrize("name", ["speculative_config", "kv_transfer_config", "logits_processors", "model"])
def test_what_the_relay_depends_on_cannot_be_passed_by(name: str) -> None:
    with pytest.raises(ConfigError, match=f"engine_options.args.{name}"):
        read_options({"args": {name: "x"}})


@pytest.mark.parametrize("name", ["enable_kv_nz", "enable_reduce_sample", "recompute_scheduler_enable"])
def test_options_of_ascend_that_break_the_relay_are_refused(name: str) -> None:
    assert told(args={"additional_config": {name: False, "other": 1}})
    with pytest.raises(ConfigError, match=f"additional_config.{name}"):
        read_options({"args": {"additional_config": {name: True}}})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as wrong:
        read_options({"dtype": "float12", "block_sise": 3, "args": {"model": "x"}})
    assert "engine_options.dtype" in str(wrong.value)
    assert "engine_options.block_sise" in str(wrong.value)
    assert "engine_options.args.model" in str(wrong.value)


@pytest.mark.parametrize(("rank", "made_for"), [(1, 8), (8, 8), (9, 16), (512, 512)])
def test_an_adapter_fits_into_the_next_rank_of_vllms(tmp_path: Path, rank: int, made_for: int) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    args = told(lora=str(tmp_path))
    assert (args["enable_lora"], args["max_lora_rank"]) == (True, made_for)


@pytest.mark.parametrize("content", ["", "{}", '{"r": 0}', '{"r": 513}', '{"r": "8"}', "[]"])
def test_what_is_no_adapter_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"engine_options\.lora"):
        told(lora=str(tmp_path))
    with pytest.raises(ConfigError, match=r"engine_options\.lora"):
        told(lora=str(tmp_path / "missing"))


def test_adapters_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"a" * 100)
    before = lora.identity(tmp_path)
    assert lora.identity(tmp_path) == before
    weights.write_bytes(b"a" * 99 + b"b")
    assert lora.identity(tmp_path) != before
