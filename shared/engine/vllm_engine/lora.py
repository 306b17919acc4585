"""A LoRA adapter's directory, as PEFT writes it: what vLLM must know beforehand, and what tells adapters apart."""

import hashlib
import json
from pathlib import Path
from typing import Final

from shared.errors import ConfigError

RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM can be made for; an adapter fits into the next larger one."""
_READ_BYTES: Final = 1 << 20


def rank_of(directory: Path) -> int:
    """The least of vLLM's ranks that holds the adapter. Raises ConfigError for what is no adapter."""
    path = directory / "adapter_config.json"
    try:
        rank = json.loads(path.read_bytes())["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = "holds no adapter_config.json with a rank `r`; give the directory of a LoRA adapter"
        raise ConfigError([f"engine_options.lora: {directory} {message}"]) from error
    fitting = [known for known in RANKS if isinstance(rank, int) and 0 < rank <= known]
    if not fitting:
        raise ConfigError([f"engine_options.lora: {path} says rank {rank!r}; vLLM knows 1 to {RANKS[-1]}"])
    return fitting[0]


def identity(directory: Path) -> str:
    """A digest of the adapter's files: KV that was computed with another one is refused."""
    digest = hashlib.sha256()
    for path in sorted(directory.glob("adapter_*")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
    return digest.hexdigest()
