"""What is measured on a device, at which sizes. Imports no torch."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

Config = Mapping[str, Any]

COMMON: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 131_072,
    "bos_token_id": None,
    "eos_token_id": None,
}
SHAPES: Final[dict[str, Config]] = {
    "8b": {
        **COMMON,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128_256,
    },
    "tiny": {
        **COMMON,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "vocab_size": 8192,
    },
}
"""The sizes of Llama 3.1 8B, and some with which all of this can be tried on a processor."""


PARTS: Final = ("roofs", "decode", "prefill", "split", "mixed")
MORE_PARTS: Final = ("fp8",)
"""Done when named: decoding with other weights."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `parts`: which of them."""

    shape: str = "8b"
    device: str = "cuda"
    parts: Sequence[str] = PARTS
    folder: str = ""  # for the model's files; empty: /dev/shm where it has room, else the usual one
    json: str = ""  # a file for the figures
    batches: Sequence[int] = (1, 4, 16, 64)
    context: int = 2048  # tokens
    steps: int = 48  # measured ones
    prompt: int = 4096  # tokens, of the prefill alone
    kv_cache_mb: int = 20_480  # of an engine by itself
    options: Mapping[str, Any] = field(default_factory=dict)  # of every engine, over those of here

    serving_kv_mb: int = 14_336  # of each of two workers; one that does both has twice as much
    staging_mb: int = 2560  # of each, in host memory and on the device
    streams: int = 64
    request_prompt: int = 1024  # tokens
    request_answer: int = 128
    ttft_ms: float = 1000.0
    tpot_ms: float = 50.0
    good: float = 0.9  # share of the requests within both
    better: float = 0.99  # looked for among the rates that were tried for the former
    seconds: float = 8.0  # of arrivals at one rate
    first_rate: float = 8.0  # requests/s
    rates: int = 6  # tried at most, for each way of serving

    def said(self) -> dict[str, Any]:
        """What is measured, without where things lie on this machine."""
        return {key: value for key, value in asdict(self).items() if key not in ("json", "folder")}

    @property
    def config(self) -> Config:
        """The model's config.json."""
        return SHAPES[self.shape]

    @property
    def vocabulary(self) -> int:
        """Tokens that the model knows."""
        return int(self.config["vocab_size"])

    @property
    def kv_token_bytes(self) -> int:
        """KV of one token over all layers, in bfloat16."""
        config = self.config
        return int(config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 2 * 2)

    @property
    def layer_parameters(self) -> int:
        """Of all layers' matrices."""
        config = self.config
        hidden, heads = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
        attention = 2 * hidden * heads + 2 * hidden * config["num_key_value_heads"] * config["head_dim"]
        return int(config["num_hidden_layers"] * (attention + 3 * hidden * config["intermediate_size"]))

    def step_bytes(self, batch: int) -> int:
        """What a decoding step has to read: every matrix once, the KV of every sequence."""
        matrices = self.layer_parameters + self.vocabulary * int(self.config["hidden_size"])
        each = 1 if self.options.get("quantization", "none") != "none" else 2
        return each * matrices + batch * self.context * self.kv_token_bytes

    def prefill_flops(self) -> float:
        """Of a prompt: its matrices, the causal half of its attention, and one token's logits."""
        config, tokens = self.config, self.prompt
        heads = config["num_attention_heads"] * config["head_dim"]
        attention = 2.0 * tokens * tokens * heads * config["num_hidden_layers"]  # 4 T^2 d, half of it masked
        return 2.0 * tokens * self.layer_parameters + attention + 2.0 * self.vocabulary * config["hidden_size"]

    def tokens(self, count: int, seed: str) -> list[int]:
        """A prompt that nobody has cached."""
        source = random.Random(seed)  # noqa: S311  no secret
        return [source.randrange(300, self.vocabulary) for _ in range(count)]
