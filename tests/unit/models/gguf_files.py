"""A tiny Gemma 3 in a GGUF file, as llama.cpp's converter lays one out, and a package that carries it."""

import sys
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest
from gguf.quants import quantize

LAYERS, HIDDEN, HEADS, HEAD, INNER, WINDOW = 7, 64, 4, 32, 96, 8
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
WORDS = ["a", "b", "c", "\u2581", "\n", "ab", "\u2581a", "abc", "\u2581ab", "  ", "<b>", "\n\n"]
TOKENS = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]


def write(path: Path, *, architecture: str = "gemma3") -> None:
    """Random weights, some of them quantised."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(WINDOW)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-float(place) for place in range(len(TOKENS))])
    writer.add_token_types([_kind(token) for token in TOKENS])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_space_prefix(value=False)
    random = np.random.default_rng(0)
    for name, shape in _shapes().items():
        values = random.standard_normal(shape, dtype=np.float32) * 0.2
        if len(shape) == 1:
            writer.add_tensor(name, values + 1)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0 if "attn" in name else gguf.GGMLQuantizationType.Q5_0
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _kind(token: str) -> int:
    if token in SPECIAL:
        return gguf.TokenType.CONTROL
    if token.startswith("<0x"):
        return gguf.TokenType.BYTE
    return gguf.TokenType.USER_DEFINED if token in {"  ", "<b>", "\n\n"} else gguf.TokenType.NORMAL


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        parts = {
            "attn_norm": (HIDDEN,),
            "attn_q": (HEADS * HEAD, HIDDEN),
            "attn_k": (HEAD, HIDDEN),
            "attn_v": (HEAD, HIDDEN),
            "attn_q_norm": (HEAD,),
            "attn_k_norm": (HEAD,),
            "attn_output": (HIDDEN, HEADS * HEAD),
            "post_attention_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
            "post_ffw_norm": (HIDDEN,),
        }
        shapes |= {f"blk.{layer}.{part}.weight": shape for part, shape in parts.items()}
    return shapes


def package(monkeypatch: pytest.MonkeyPatch, source: Path) -> list[Path]:
    """Install a module `tiny_model_package` whose `assemble` copies the file; answers where to."""
    assembled: list[Path] = []

    def assemble(target: Path) -> None:
        assembled.append(target)
        target.write_bytes(source.read_bytes())

    module = ModuleType("tiny_model_package")
    module.assemble = assemble  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiny_model_package", module)
    return assembled
