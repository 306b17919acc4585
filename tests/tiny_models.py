"""Tiny random models of every family, as Hugging Face's transformers makes and saves them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm

tqdm.monitor_interval = 0  # its watching thread would outlive the test
transformers.utils.logging.disable_progress_bar()

SHAPE: dict[str, Any] = {
    "vocab_size": 199,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GEMMA = {
    "head_dim": 24,
    "query_pre_attn_scalar": 20,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
}
QWEN_SLIDING = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama with biases, tied": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama 3": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": 8, "head_dim": 20}),
    "mistral without a window": ("Mistral", {"sliding_window": None}),
    "qwen 2": ("Qwen2", {}),
    "qwen 2, sliding, tied": ("Qwen2", {**QWEN_SLIDING, "tie_word_embeddings": True}),
    "qwen 3": ("Qwen3", {"head_dim": 20}),
    "qwen 3 with biases, sliding": ("Qwen3", {"head_dim": 16, "attention_bias": True, **QWEN_SLIDING}),
    "gemma 3": ("Gemma3", {**GEMMA, "rope_parameters": GEMMA_ROPE}),
    "gemma 3, one key head, capped": ("Gemma3", {**GEMMA, "num_key_value_heads": 1, "final_logit_softcapping": 5.0}),
}


def make(variant: str, directory: Path, *, seed: int = 0, shard: str = "1GB", **more: Any) -> Any:
    """Save the variant in the directory and return transformers' model of it."""
    family, extra = VARIANTS[variant]
    name = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **extra, **more})
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zero biases and unit norms would hide a mistake
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory, max_shard_size=shard)
    return model


def edit(directory: Path, **changes: object) -> None:
    """Change keys of config.json; None removes one."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config.pop(key, None)
        if value is not None:
            config[key] = value
    path.write_text(json.dumps(config))
