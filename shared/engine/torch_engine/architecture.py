"""What config.json says, in one vocabulary: which of a few known variations a decoder is built from.

Owns the reading of model families and the refusal of what is not built. Loads no weights and imports no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.errors import ConfigError

FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
ACTIVATIONS: Final = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rope:
    """How positions turn queries and keys."""

    theta: float
    factor: float = 1.0  # every frequency is divided by it; for llama3 only the low ones
    low_freq_factor: float = 0.0  # llama3 where it is not 0
    high_freq_factor: float = 0.0
    original_context: int = 0


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What may differ between the layers of one model."""

    rope: Rope
    window: int = 0  # a token sees itself and window - 1 tokens before it; 0 is all


@dataclass(frozen=True, slots=True)
class Architecture:
    """One decoder. Numbers as in config.json, switches in our words."""

    family: str
    vocabulary: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: tuple[LayerKind, ...]
    context: int
    eps: float
    activation: str  # silu | gelu_tanh
    attention_scale: float
    tied: bool  # the head is the embedding
    qkv_bias: bool = False
    output_bias: bool = False  # of the attention's output projection
    mlp_bias: bool = False
    qk_norm: bool = False  # queries and keys are normalised per head, before RoPE
    sandwich_norms: bool = False  # also after attention and after the MLP
    norm_offset: float = 0.0  # added to every norm's weight
    embedding_scale: float = 1.0
    logit_cap: float = 0.0  # soft cap of the final logits; 0 is none
    eos_ids: frozenset[int] = frozenset()

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """Each kind of layer once, in order of appearance."""
        return tuple(dict.fromkeys(self.layers))


def read_architecture(directory: Path) -> Architecture:
    """The architecture of a Hugging Face model directory. Raises ConfigError naming every key at fault."""
    config = _json(directory / "config.json")
    generation = _json(directory / "generation_config.json") if (directory / "generation_config.json").exists() else {}
    try:
        return _Reading(config, generation).architecture()
    except (AttributeError, KeyError, TypeError) as error:  # a value of another shape than anybody writes
        raise ConfigError([f"{directory / 'config.json'} cannot be understood: {error}"]) from error


def _json(path: Path) -> Table:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path} cannot be read: {error}"]) from error
    if not isinstance(table, dict):
        raise ConfigError([f"{path} holds no JSON object"])
    return table


class _Reading:
    """One pass over one config.json. `faults` collects a sentence per mistake."""

    def __init__(self, config: Table, generation: Table) -> None:
        self._config = config
        self._generation = generation
        self._faults: list[str] = []

    def architecture(self) -> Architecture:
        family = self._config.get("model_type")
        if family not in FAMILIES:
            raise ConfigError([f"config.json: model_type {family!r} is not supported; known: {', '.join(FAMILIES)}"])
        self._refuse_what_is_not_built()
        gemma = family == "gemma3_text"
        hidden, heads = self._count("hidden_size"), self._count("num_attention_heads")
        kv_heads = self._count("num_key_value_heads", 8 if family == "mistral" else 4 if gemma else heads)
        head_dim = self._count("head_dim", {"gemma3_text": 256, "qwen3": 128}.get(family, max(hidden // heads, 1)))
        if heads % kv_heads:
            self._faults.append(f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
        attention_bias = bool(self._config.get("attention_bias", False)) and family != "mistral"
        built = Architecture(
            family=family,
            vocabulary=self._count("vocab_size"),
            hidden=hidden,
            intermediate=self._count("intermediate_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            layers=self._layers(family),
            context=self._count("max_position_embeddings", 131_072 if gemma or family == "mistral" else 2048),
            eps=self._number("rms_norm_eps", 1e-6),
            activation=self._activation("hidden_activation" if gemma else "hidden_act", gemma=gemma),
            attention_scale=self._number("query_pre_attn_scalar", 256.0 if gemma else float(head_dim)) ** -0.5,
            tied=bool(self._config.get("tie_word_embeddings", gemma)),
            qkv_bias=family == "qwen2" or attention_bias,
            output_bias=attention_bias and family != "qwen2",
            mlp_bias=bool(self._config.get("mlp_bias", False)) and family == "llama",
            qk_norm=family in ("qwen3", "gemma3_text"),
            sandwich_norms=gemma,
            norm_offset=1.0 if gemma else 0.0,
            embedding_scale=hidden**0.5 if gemma else 1.0,
            logit_cap=self._number("final_logit_softcapping", 0.0),
            eos_ids=self._eos_ids(),
        )
        if self._faults:
            raise ConfigError([f"config.json: {fault}" for fault in dict.fromkeys(self._faults)])
        return built

    def _refuse_what_is_not_built(self) -> None:
        for key in ("attn_logit_softcapping", "use_bidirectional_attention", "quantization_config"):
            if self._config.get(key):
                self._faults.append(f"{key} {self._config[key]!r} is not supported")
        if self._config.get("partial_rotary_factor", 1.0) != 1.0:
            self._faults.append(f"partial_rotary_factor {self._config['partial_rotary_factor']!r} is not supported")

    def _count(self, key: str, default: int | None = None) -> int:
        value = self._config.get(key)
        value = default if value is None else value
        if type(value) is int and value > 0:
            return value
        self._faults.append(
            f"{key} is {'missing' if value is None else repr(value)}; it must be a whole number above 0"
        )
        return 1

    def _number(self, key: str, default: float) -> float:
        value = self._config.get(key)
        value = default if value is None else value
        if isinstance(value, int | float) and value >= 0:
            return float(value)
        self._faults.append(f"{key} is {value!r}; it must be a number")
        return 1.0

    def _activation(self, key: str, *, gemma: bool) -> str:
        name = self._config.get(key) or ("gelu_pytorch_tanh" if gemma else "silu")
        if name not in ACTIVATIONS:
            self._faults.append(f"{key} {name!r} is not supported; known: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS.get(name, "silu")

    def _layers(self, family: str) -> tuple[LayerKind, ...]:
        number = self._count("num_hidden_layers")
        window = self._config.get("sliding_window", 4096)
        full, sliding = LayerKind(self._rope(family, sliding=False)), None
        if type(window) is int and window > 0:
            sliding = LayerKind(self._rope(family, sliding=True), window)
        windowed = self._windowed(family, number)
        if any(windowed) and sliding is None and family != "mistral":
            self._faults.append(f"sliding_window {window!r} must be a whole number above 0, since layers slide")
        return tuple(sliding if slides and sliding else full for slides in windowed)

    def _windowed(self, family: str, number: int) -> list[bool]:
        """Which layers see a sliding window only."""
        config = self._config
        if family == "mistral":
            return [True] * number
        if family == "llama" or (family in ("qwen2", "qwen3") and not config.get("use_sliding_window")):
            return [False] * number
        types = config.get("layer_types")
        if types is None and family == "gemma3_text":
            pattern = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
            return [bool((layer + 1) % pattern) for layer in range(number)]
        if types is None:
            return [layer >= config.get("max_window_layers", 28) for layer in range(number)]
        if len(types) != number or not set(types) <= {"sliding_attention", "full_attention"}:
            self._faults.append("layer_types must name sliding_attention or full_attention for each layer")
            return [False] * number
        return [kind == "sliding_attention" for kind in types]

    def _rope(self, family: str, *, sliding: bool) -> Rope:
        """Both spellings: `rope_parameters` of today, `rope_theta` with `rope_scaling` of before."""
        config = self._config
        parameters = config.get("rope_parameters") or {}
        theta: Any = config.get("rope_theta", 1_000_000.0 if family == "gemma3_text" else 10_000.0)
        scaling = config.get("rope_scaling") or {}
        if family == "gemma3_text":
            parameters = parameters.get("sliding_attention" if sliding else "full_attention") or {}
            if sliding:  # the long-context scaling is of the full layers alone
                theta, scaling = config.get("rope_local_base_freq", 10_000.0), {}
        scaling = {**scaling, **parameters}
        theta = scaling.get("rope_theta", theta)
        if not isinstance(theta, int | float) or theta <= 0:
            self._faults.append(f"rope_theta {theta!r} must be a number above 0")
            return Rope(1.0)
        return self._scaled(float(theta), scaling)

    def _scaled(self, theta: float, scaling: Table) -> Rope:
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        try:
            match kind:
                case "default":
                    return Rope(theta)
                case "linear":
                    return Rope(theta, float(scaling["factor"]))
                case "llama3":
                    original = scaling.get(
                        "original_max_position_embeddings", self._config.get("max_position_embeddings")
                    )
                    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
                    return Rope(theta, float(scaling["factor"]), low, high, int(original))
                case _:
                    self._faults.append(f"rope_type {kind!r} is not supported; known: default, linear, llama3")
        except (KeyError, TypeError, ValueError) as error:
            self._faults.append(f"rope scaling {kind!r} lacks a proper {error}")
        return Rope(theta)

    def _eos_ids(self) -> frozenset[int]:
        ids: set[int] = set()
        for table in (self._config, self._generation):
            value = table.get("eos_token_id")
            ids.update(value if isinstance(value, list) else [] if value is None else [value])
        return frozenset(ids)
