"""A model with random weights, as the directory that an engine loads: made on the device, written once."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from bench.device.apart import apart
from bench.device.plan import Config, Plan

SHM: Final = Path("/dev/shm")  # noqa: S108  memory is what is wanted
DEVIATION: Final = 0.02
WRITTEN_S: Final = 240.0
Sizes = dict[str, tuple[int, ...]]


@contextmanager
def model(plan: Plan) -> Iterator[Path]:
    """The directory, which is gone after the context."""
    with tempfile.TemporaryDirectory(dir=_root(plan), prefix="baton-bench-") as folder:
        directory = Path(folder)
        apart(WRITTEN_S, write, plan, directory)
        yield directory


def _root(plan: Plan) -> Path:
    """In memory, where it has room for the weights and some more."""
    needed = 2 * 1.2 * (plan.layer_parameters + 2 * plan.vocabulary * int(plan.config["hidden_size"]))
    if plan.folder:
        return Path(plan.folder)
    return SHM if SHM.exists() and shutil.disk_usage(SHM).free > needed else Path(tempfile.gettempdir())


def write(plan: Plan, directory: Path) -> None:
    """Write config, weights (one file for each layer, one for the rest) and tokenizer."""
    config = plan.config
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    where: dict[str, str] = {}
    for number, sizes in enumerate([_outer(config), *_layers(config)]):
        name = f"part-{number:03}.safetensors"
        save_file({key: _random(shape, plan.device) for key, shape in sizes.items()}, directory / name)
        where |= dict.fromkeys(sizes, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    tokenizer(plan.vocabulary).save(str(directory / "tokenizer.json"))


def _random(shape: tuple[int, ...], device: str) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, dtype=torch.bfloat16, device=device) * DEVIATION).cpu()


def _outer(config: Config) -> Sizes:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    return {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }


def _layers(config: Config) -> Iterator[Sizes]:
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    for number in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{number}"
        yield {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (queries, hidden),
            f"{prefix}.self_attn.k_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.v_proj.weight": (keys, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, queries),
            f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}.mlp.up_proj.weight": (inner, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, inner),
        }


def tokenizer(vocabulary: int) -> Tokenizer:
    """Byte-level BPE without a corpus: bytes, then pairs of them, then pairs and a byte, as many as are wanted."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {letter: place for place, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    for left in _begun(letters):
        for letter in letters:
            if len(tokens) == vocabulary:
                break
            tokens[left + letter] = len(tokens)
            merges.append((left, letter))
    made = Tokenizer(models.BPE(vocab=tokens, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _begun(letters: list[str]) -> Iterator[str]:
    yield from letters
    for first in letters:
        yield from (first + second for second in letters)
