"""Reads a Gemma 3 model out of a GGUF file: its config, its float32 weights, its tokenizer.

Owns the translation of names and conventions between llama.cpp's file and a Hugging Face directory. Writes nothing.
Weights stay float32: the blocks of a quantised file multiply 16-bit scales by integers, which neither bfloat16 nor
float16 can hold exactly, so a shorter type would change the model's text.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

Array = npt.NDArray[np.float32]

SPACE: Final = "\u2581"
"""How a sentencepiece vocabulary spells a space."""

_CONTROL, _USER_DEFINED = 3, 4

_OUTSIDE_LAYERS: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
_OF_A_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class Gguf:
    """One Gemma 3 GGUF file, open for reading."""

    def __init__(self, path: Path) -> None:
        self._reader = GGUFReader(path)
        architecture = self._value("general.architecture")
        if architecture != "gemma3":
            raise ValueError(f"{path} holds a {architecture} model; only gemma3 files can be imported")

    @property
    def tensors(self) -> int:
        """How many `weights` yields."""
        return len(self._reader.tensors)

    def config(self) -> dict[str, Any]:
        """What config.json says, in the words of Hugging Face."""
        layers = self._value("gemma3.block_count")
        # Gemma 3 fixes these, so the file does not say them: every sixth layer attends to all, the others to a window.
        full_every, local_theta = 6, 10_000.0
        return {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "vocab_size": len(self._value("tokenizer.ggml.tokens")),
            "hidden_size": self._value("gemma3.embedding_length"),
            "intermediate_size": self._value("gemma3.feed_forward_length"),
            "num_hidden_layers": layers,
            "num_attention_heads": self._value("gemma3.attention.head_count"),
            "num_key_value_heads": self._value("gemma3.attention.head_count_kv"),
            "head_dim": self._value("gemma3.attention.key_length"),
            "query_pre_attn_scalar": self._value("gemma3.attention.key_length"),
            "max_position_embeddings": self._value("gemma3.context_length"),
            "rms_norm_eps": float(self._value("gemma3.attention.layer_norm_rms_epsilon")),
            "sliding_window": self._value("gemma3.attention.sliding_window"),
            "layer_types": [
                "full_attention" if (layer + 1) % full_every == 0 else "sliding_attention" for layer in range(layers)
            ],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": float(self._value("gemma3.rope.freq_base"))},
                "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
            },
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
            "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in self._reader.tensors),
            "bos_token_id": self._value("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self._value("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self._value("tokenizer.ggml.padding_token_id"),
            "dtype": "float32",
        }

    def weights(self) -> Iterator[tuple[str, Array]]:
        """Every tensor under its Hugging Face name, dequantised to float32."""
        for tensor in self._reader.tensors:
            values: Array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
            if tensor.name.endswith("norm.weight"):
                values = values - np.float32(1.0)  # the file stores 1 + w, Gemma's code adds the 1 itself
            yield _hugging_face_name(tensor.name), np.ascontiguousarray(values)

    def tokenizer(self) -> Tokenizer:
        """Byte-fallback BPE, as Gemma's own tokenizer.json describes it; adds the BOS token where asked to."""
        kinds: list[int] = self._value("tokenizer.ggml.token_type")
        tokens = [_spelled(token) for token in self._value("tokenizer.ggml.tokens")]
        unknown = tokens[self._value("tokenizer.ggml.unknown_token_id")]
        model = models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=_merges(tokens),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
        tokenizer.add_special_tokens(
            [AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
        )
        tokenizer.add_tokens(
            [
                AddedToken(token, normalized=False)
                for token, kind in zip(tokens, kinds, strict=True)
                if kind == _USER_DEFINED and SPACE not in token  # runs of spaces are ordinary tokens, found by merging
            ]
        )
        bos = self._value("tokenizer.ggml.bos_token_id")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
        return tokenizer

    def special_tokens(self) -> dict[str, str]:
        """The texts of the tokens that have a role, under the names of tokenizer_config.json."""
        tokens = self._value("tokenizer.ggml.tokens")
        return {
            f"{short}_token": tokens[self._value(f"tokenizer.ggml.{name}_token_id")]
            for short, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        }

    def _value(self, key: str) -> Any:  # noqa: ANN401  (a GGUF field is a number, a string or a list of them)
        field = self._reader.get_field(key)
        if field is None:
            raise ValueError(f"the GGUF file lacks {key}")
        return field.contents()


def _hugging_face_name(name: str) -> str:
    if name in _OUTSIDE_LAYERS:
        return _OUTSIDE_LAYERS[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{_OF_A_LAYER[part]}.{suffix}"


def _spelled(token: str) -> str:
    """The file writes runs of spaces as such; in the vocabulary they are spelled like any other space."""
    return SPACE * len(token) if token and not token.strip(" ") else token


def _merges(tokens: list[str]) -> list[tuple[str, str]]:
    """Every way to make a token out of two others, in the order in which BPE tries them.

    The file does not hold the merges. Gemma's vocabulary is in merge order, so a token's id is its priority, and of the
    splits of one token the one with the longest first half comes first.
    """
    known = set(tokens)
    return [
        (token[:cut], token[cut:])
        for token in tokens
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in known and token[cut:] in known
    ]
