"""ModelSpec: what gateway and workers know of a model without loading its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BYTE_BOS: Final = 256
BYTE_EOS: Final = 257
"""Special tokens of the byte tokenizer, after the 256 bytes: what a model without tokenizer.json speaks."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model, as everyone but its engine sees it."""

    name: str
    path: Path | None  # config.json, tokenizer.json, *.safetensors; None where the engine needs no model
    context: int  # tokens, prompt and generated together; an engine with little memory may hold fewer
    bos_id: int | None
    eos_ids: frozenset[int]
    chat_template: str  # Jinja; empty when the model has none. It writes the BOS token itself
    tokenizer_path: Path | None  # tokenizer.json; None: UTF-8 bytes
    default_stop: tuple[str, ...] = ()
    """Chats only: the gateway adds these to the client's stop strings, because the model has no token to end a turn."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """The model's own defaults for what a client leaves open, by the names of `shared.messages.Sampling`."""
    tool_template: str = ""  # a second template, for conversations with functions; empty: the first serves them too
    clock: bool = False  # streams show the time at which each token became text
