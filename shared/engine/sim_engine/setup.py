"""What the sim engine is before its first sequence: its fixed facts, and the tokens it may draw."""

import hashlib
from typing import Final

from shared.engine import EngineInfo
from shared.engine.sim_engine.chain import PRINTABLE, Vocabulary
from shared.engine.sim_engine.options import SimOptions
from shared.errors import EngineFailed
from shared.models.spec import ModelSpec
from shared.text.matching import Grammars
from shared.text.opening import open_tokenizer
from shared.text.tokenizer import Tokenizer

CLOSING: Final = frozenset(b'"]},')
"""What tokens that bring JSON nearer to its end are made of."""
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


def tokens_of(spec: ModelSpec, options: SimOptions, tokenizer: Tokenizer | None) -> tuple[Vocabulary, Grammars]:
    """The tokens to draw from, freely and under constraints. Takes seconds for a large tokenizer: not for the loop."""
    opened = tokenizer or open_tokenizer(spec)
    tokens = PRINTABLE if spec.tokenizer_path is None else _printable(spec, opened)
    closing = [token for token in range(opened.vocabulary) if CLOSING.issuperset(opened.shown(token) or b"?")]
    vocabulary = Vocabulary(tokens, spec.eos_ids, options.eos_one_in, closing)
    return vocabulary, Grammars(opened, opened.vocabulary)


def _printable(spec: ModelSpec, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Every token that is whole, visible text, so that any row of them is."""
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
