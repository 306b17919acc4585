"""From a vocabulary entry's spelling to its bytes, for the two families of spelling that language models use.

Pure. Byte-level BPE (GPT-2, Llama 3, Qwen, Mistral's newer models) spells each byte as a printable character. Sentence-
piece (Llama 2, Gemma, Mistral's first models) spells text as it is, a space as U+2581, and lone bytes as <0xE3>.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from shared.errors import ConfigError

PieceReader = Callable[[str], bytes]

_LONE_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")
_PRINTABLE: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))


def piece_reader(tokenizer: Tokenizer, path: Path) -> PieceReader:
    """The reader that fits a tokenizer's decoder. Raises ConfigError for a kind that has no exact bytes."""
    # what pickle would store: the whole tokenizer's JSON says the same, a second later
    definition = None if tokenizer.decoder is None else json.loads(tokenizer.decoder.__getstate__())
    decoders = list(_flat(definition))
    kinds = {decoder["type"] for decoder in decoders}
    if "ByteLevel" in kinds:
        return _byte_level
    spaces = [_space(decoder) for decoder in decoders if decoder["type"] in {"Replace", "Metaspace"}]
    if spaces and kinds <= {"Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"}:
        return _sentencepiece([space for space in spaces if space[0]], lone_bytes="ByteFallback" in kinds)
    raise ConfigError(
        [f"{path}: its decoder ({', '.join(sorted(kinds)) or 'none'}) is neither byte-level BPE nor sentencepiece"]
    )


def _flat(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _flat(part)
    else:
        yield decoder


def _space(decoder: dict[str, Any]) -> tuple[str, str]:
    """What a decoder replaces by what."""
    if decoder["type"] == "Metaspace":
        return decoder["replacement"], " "
    return decoder["pattern"].get("String", ""), decoder["content"]


def _sentencepiece(replacements: list[tuple[str, str]], *, lone_bytes: bool) -> PieceReader:
    # Strip takes away the space before a text's first word. Here tokens continue a prompt, so it is no part of them.
    def read(token: str) -> bytes:
        lone = _LONE_BYTE.fullmatch(token) if lone_bytes else None
        if lone is not None:
            return bytes.fromhex(lone[1])
        for spelled, text in replacements:
            token = token.replace(spelled, text)
        return token.encode()

    return read


def _spelling() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 characters mean themselves, the other bytes follow from U+0100 on."""
    others = (byte for byte in range(256) if byte not in _PRINTABLE)
    return {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTE_OF: Final = _spelling()


def _byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:  # a token that was added as plain text
        return token.encode()
