"""What the sim engine is before its first sequence: its fixed facts, and the tokens it may draw."""

import hashlib
from typing import Final

from shared.engine import EngineInfo
from shared.engine.sim_engine.chain import PRINTABLE, Vocabulary
from shared.engine.sim_engine.options import SimOptions
from shared.errors import EngineFailed
from shared.models.spec import ModelSpec
from shared.text.opening import open_tokenizer

LAYOUT: Final = 1
"""Of the rows; part of the fingerprint."""


def info_of(spec: ModelSpec, options: SimOptions) -> EngineInfo:
    """What the engine says of itself."""
    parts = (LAYOUT, spec.name, options.tokenizer, options.kv_bytes_per_token, options.block_size)
    return EngineInfo(
        model=spec.name,
        fingerprint=f"sim-{hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()}",
        context=options.context,
        block_tokens=options.block_size,
        block_bytes=options.block_size * options.kv_bytes_per_token,
        blocks=options.blocks,
        max_sequences=options.max_num_seqs,
        eos_ids=spec.eos_ids,
    )


def vocabulary_of(spec: ModelSpec, options: SimOptions) -> Vocabulary:
    """The tokens to draw from. Reads the tokenizer where one is given, which takes seconds: not for the event loop."""
    return Vocabulary(PRINTABLE if spec.tokenizer_path is None else _printable(spec), spec.eos_ids, options.eos_one_in)


def _printable(spec: ModelSpec) -> tuple[int, ...]:
    """Every token that is whole, visible text, so that any row of them is."""
    tokenizer = open_tokenizer(spec)
    found = []
    for token in range(tokenizer.vocabulary):
        raw = tokenizer.shown(token)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            continue
        if text and text.replace(" ", "x").isprintable():
            found.append(token)
    if not found:
        raise EngineFailed(f"{spec.tokenizer_path} has no printable token", fatal=True)
    return tuple(found)
