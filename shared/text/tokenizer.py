"""Tokenizers that know each token's exact bytes.

Owns the mapping between text and token ids. A token's bytes are what makes streaming exact: the text of any number of
tokens is their bytes, joined and decoded, so it does not matter where a character is cut.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import tokenizers

from shared.errors import BadRequest, ConfigError
from shared.models.spec import BYTE_BOS, BYTE_EOS
from shared.text.pieces import PieceReader, piece_reader


class Tokenizer(Protocol):
    """Text to token ids and back. Methods may be called from any thread."""

    @property
    def vocabulary(self) -> int:
        """Ids are below this."""
        ...

    @property
    def special(self) -> Sequence[str]:
        """Names of the special tokens, which are recognised where they are written out."""
        ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids; `special` adds what the model wants around a prompt (BOS), which a chat template writes itself.

        Special tokens written out in the text are recognised either way. Raises BadRequest for text that is no Unicode.
        """
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of tokens, without the special ones; U+FFFD where their bytes are no UTF-8."""
        ...

    def piece(self, token_id: int) -> tuple[str, bytes]:
        """One token's own text and exact bytes; a special token's are its name. Unknown ids have none."""
        ...

    def shown(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text: its own, or none when it is special."""
        ...

    @property
    def texts(self) -> Mapping[int, str | None]:
        """What `shown` says, as text, for any token; None where it is no whole characters. Quick: looked up."""
        ...


def whole(raw: bytes) -> str | None:
    """The text of bytes; None where they are no whole characters by themselves."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


class Texts(dict[int, str | None]):
    """The texts of a vocabulary, each made when it is asked for first. Grows no further than the vocabulary."""

    def __init__(self, vocabulary: int, shown: Callable[[int], bytes]) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._shown = shown

    def __missing__(self, token_id: int) -> str | None:
        text = whole(self._shown(token_id))
        if 0 <= token_id < self._vocabulary:
            self[token_id] = text
        return text


class HubTokenizer:
    """A tokenizer.json, run by the `tokenizers` package."""

    def __init__(self, path: Path) -> None:
        try:
            self._inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises plain Exception for every fault of the file
            raise ConfigError([f"{path} is no tokenizer that can be read: {error}"]) from error
        self._inner.no_truncation()
        self._inner.no_padding()
        self._pieces: PieceReader = piece_reader(self._inner, path)
        self._added = dict(self._inner.get_added_tokens_decoder())
        self._shown: dict[int, bytes] = {}
        self.special: Sequence[str] = [one.content for one in self._added.values() if one.special]
        self.vocabulary: int = 1 + max(self._inner.get_vocab(with_added_tokens=True).values())
        self.texts: Mapping[int, str | None] = Texts(self.vocabulary, self.shown)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer."""
        try:
            return self._inner.encode(text, add_special_tokens=special).ids
        except (TypeError, UnicodeError) as error:  # a lone surrogate
            raise BadRequest("the text is not valid Unicode") from error

    def decode(self, ids: list[int]) -> str:
        """See Tokenizer."""
        return b"".join(map(self.shown, ids)).decode("utf-8", "replace")

    def piece(self, token_id: int) -> tuple[str, bytes]:
        """See Tokenizer."""
        added = self._added.get(token_id)
        raw = added.content.encode() if added is not None else self.shown(token_id)
        return raw.decode("utf-8", "replace"), raw

    def shown(self, token_id: int) -> bytes:
        """See Tokenizer."""
        known = self._shown.get(token_id)
        if known is None:
            known = self._read(token_id)
            if 0 <= token_id < self.vocabulary:  # others are anyone's numbers
                self._shown[token_id] = known
        return known

    def _read(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            return b"" if added.special else added.content.encode()
        token = self._inner.id_to_token(token_id) if 0 <= token_id < self.vocabulary else None
        return b"" if token is None else self._pieces(token)


class ByteTokenizer:
    """One token per byte of UTF-8, and two special ones. For engines without a model."""

    BOS: Final = BYTE_BOS
    EOS: Final = BYTE_EOS
    vocabulary: int = 258
    _NAMES: Final = {BOS: b"<bos>", EOS: b"<eos>"}
    _BYTES: Final = tuple(bytes([value]) for value in range(256))
    special: Sequence[str] = ("<bos>", "<eos>")
    texts: Mapping[int, str | None]

    def __init__(self) -> None:
        self.texts = Texts(self.vocabulary, self.shown)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer. A written-out special token is recognised at the text's start only, where templates put it."""
        try:
            data = text.encode()
        except UnicodeError as error:
            raise BadRequest("the text is not valid Unicode") from error
        bos = self._NAMES[self.BOS]
        if not special and data.startswith(bos):
            return [self.BOS, *data[len(bos) :]]
        return [self.BOS, *data] if special else list(data)

    def decode(self, ids: list[int]) -> str:
        """See Tokenizer."""
        return bytes(index for index in ids if 0 <= index < self.BOS).decode("utf-8", "replace")

    def piece(self, token_id: int) -> tuple[str, bytes]:
        """See Tokenizer."""
        raw = self._NAMES.get(token_id) or self.shown(token_id)
        return raw.decode("utf-8", "replace"), raw

    def shown(self, token_id: int) -> bytes:
        """See Tokenizer."""
        return self._BYTES[token_id] if 0 <= token_id < self.BOS else b""
