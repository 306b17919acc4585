"""Reading config.json: the refusals name the key, and what is missing gets the family's own default."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.engine.torch_engine.architecture import Architecture, Rope, read_architecture
from shared.errors import ConfigError

BASE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def read(directory: Path, *, generation: dict[str, Any] | None = None, **changes: Any) -> Architecture:
    config = {key: value for key, value in {**BASE, **changes}.items() if value is not ...}
    (directory / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return read_architecture(directory)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba"}, "model_type"),
        ({"model_type": ...}, "model_type"),
        ({"hidden_size": ...}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "gemma3_text", "sliding_window": 0}, "sliding_window"),
        ({"model_type": "qwen3", "use_sliding_window": True, "layer_types": ["full_attention"]}, "layer_types"),
        ({"model_type": "gemma3_text", "layer_types": ["chunked_attention"] * 7}, "layer_types"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_parameters": ["default"]}, "cannot be understood"),
    ],
)
def test_what_is_not_built_is_refused_by_the_name_of_its_key(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, **changes)
    assert any(named in fault for fault in refusal.value.faults), refusal.value


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, hidden_size=0, hidden_act="relu", rope_theta="x")
    assert len(refusal.value.faults) == 3


def test_a_directory_without_a_readable_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_architecture(tmp_path)
    for text in ("{", "[]", "\udcff"):
        (tmp_path / "config.json").write_text(text, errors="surrogateescape")
        with pytest.raises(ConfigError, match=r"config\.json"):
            read_architecture(tmp_path)


def test_gemma_without_layer_types_slides_in_all_layers_but_each_sixth(tmp_path: Path) -> None:
    gemma = read(tmp_path, model_type="gemma3_text", head_dim=8, sliding_window=16)
    assert [layer.window for layer in gemma.layers] == [16] * 5 + [0, 16]
    assert (gemma.layers[0].rope.theta, gemma.layers[5].rope.theta) == (10_000.0, 1_000_000.0)
    assert (gemma.tied, gemma.norm_offset, gemma.attention_scale) == (True, 1.0, 256**-0.5)


def test_gemmas_long_context_scaling_is_of_its_full_layers_alone(tmp_path: Path) -> None:
    old = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    gemma = read(tmp_path, model_type="gemma3_text", head_dim=8, sliding_window=16, **old)
    assert gemma.layers[0].rope == Rope(1e4)
    assert gemma.layers[5].rope == Rope(1e6, 8.0)


def test_end_of_sequence_tokens_are_those_of_both_files(tmp_path: Path) -> None:
    assert read(tmp_path, eos_token_id=1, generation={"eos_token_id": [1, 106]}).eos_ids == {1, 106}


def test_qwen_2_has_biases_on_queries_keys_and_values_only(tmp_path: Path) -> None:
    qwen = read(tmp_path, model_type="qwen2", attention_bias=True)
    assert (qwen.qkv_bias, qwen.output_bias, qwen.qk_norm) == (True, False, False)
