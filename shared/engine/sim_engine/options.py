"""The sim engine's options: the table [scenario.<name>.engine_options] as a checked value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from shared.config.reader import Reader, setting
from shared.errors import ConfigError

DEFAULT_PREFILL_MS: Final = (0.0, 0.0, 20.0)
MILLISECONDS: Final = (0.0, 3_600_000.0)
MOST_BLOCKS: Final = 1 << 20
SMALLEST_ROW: Final = 8
"""Bytes of KV per token: a row begins with the 64-bit number that it stands for."""


@dataclass(frozen=True, slots=True)
class SimOptions:
    """Timings, sizes and what the text is. Where the torch engine has the same option, it has the same name."""

    decode_step_ms: float = setting(20.0, between=MILLISECONDS)  # one step of the whole batch; 0: as fast as it goes
    decode_seq_ms: float = setting(0.0, between=MILLISECONDS)  # more for each sequence in the batch
    prefill_batch: int = setting(0, between=(0, 65_536))  # prompts computed side by side, others wait; 0: all
    max_num_seqs: int = setting(64, between=(1, 65_536))
    kv_bytes_per_token: int = setting(1024, between=(SMALLEST_ROW, 1 << 24))
    emit: str = setting("hash", choices=("hash", "clock"))
    max_model_len: int = setting(32_768, between=(2, 1 << 22))  # tokens, prompt and generated together
    block_size: int = setting(16, between=(1, 1024))  # tokens
    num_blocks: int = setting(
        0, between=(0, MOST_BLOCKS)
    )  # 0: enough for max_num_seqs of max_model_len, if that is possible
    enable_prefix_cache: bool = setting(default=False)  # repeated prompts then take less time, and say so
    eos_one_in: int = setting(0, between=(0, 1 << 32))  # about one token in so many ends the text; 0: none does
    tokenizer: str = setting("")  # a model's name or directory; empty: one token per byte of UTF-8
    prefill: tuple[float, float, float] = DEFAULT_PREFILL_MS  # read from `prefill_ms`: a, b, c

    @property
    def context(self) -> int:
        """Tokens, prompt and generated together: what a sequence may have, and what the blocks hold of one."""
        return min(self.max_model_len, self.blocks * self.block_size)

    @property
    def blocks(self) -> int:
        """How many there are for sequences."""
        return self.num_blocks or min(MOST_BLOCKS, self.max_num_seqs * -(-self.max_model_len // self.block_size))

    def prefill_s(self, tokens: int) -> float:
        """How long so many prompt tokens, not found in the cache, take: a*t*t + b*t + c."""
        a, b, c = self.prefill
        return max(0.0, (a * tokens * tokens + b * tokens + c) / 1000)

    def decode_step_s(self, sequences: int) -> float:
        """How long one step of a batch of so many sequences takes."""
        return (self.decode_step_ms + self.decode_seq_ms * sequences) / 1000


def read_options(table: Mapping[str, Any]) -> SimOptions:
    """The options in `table`. Raises ConfigError with every mistake."""
    reader = Reader()
    rest = {name: value for name, value in table.items() if name not in {"prefill_ms", "prefill"}}
    if "prefill" in table:
        reader.faults.append("engine_options.prefill is no key; did you mean prefill_ms?")
    options = reader.section(SimOptions, rest, "engine_options")
    prefill = _polynomial(table.get("prefill_ms", DEFAULT_PREFILL_MS), reader.faults)
    if reader.faults or options is None:
        raise ConfigError(reader.faults)
    return replace(options, prefill=prefill)


def _polynomial(value: object, faults: list[str]) -> tuple[float, float, float]:
    terms = [float(term) for term in value if type(term) in (int, float)] if isinstance(value, list | tuple) else []
    if not isinstance(value, list | tuple) or len(terms) != len(value) or len(terms) != len(DEFAULT_PREFILL_MS):
        faults.append(f"engine_options.prefill_ms takes three numbers [a, b, c] for a*t*t + b*t + c, not {value!r:.60}")
        return DEFAULT_PREFILL_MS
    if not all(0 <= term <= MILLISECONDS[1] for term in terms):  # also keeps nan out
        faults.append(f"engine_options.prefill_ms is {value!r:.60}; no term may be below 0 or above an hour")
    return terms[0], terms[1], terms[2]
