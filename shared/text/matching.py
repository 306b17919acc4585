"""Which tokens may come next in a text that must belong to a language: one matcher per text, by llguidance.

Owns the tokens as llguidance reads them and the rule of endings: a text may end where the language accepts it, and
nowhere else. A row of bits, lowest first, says which tokens may come. For workers only; gateways `check`.
"""

import ctypes
import os
import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Final

from llguidance import LLExecutor, LLMatcher, LLTokenizer

from shared.errors import BadRequest
from shared.messages import Constraint
from shared.text.grammar import LIMITS, compiled, name_of, shortened, trouble
from shared.text.tokenizer import Tokenizer

MOST_THREADS: Final = 8
"""That compute the rows of one batch."""
_WORD: Final = 4
"""Bytes: rows are whole words of 32 bits."""


class Matcher:
    """Follows one text token by token. Used by one thread at a time."""

    __slots__ = ("_end", "_inner", "_name", "over", "row_bytes")

    def __init__(self, inner: LLMatcher, end: int, name: str) -> None:
        self._inner = inner
        self.row_bytes: int = -(-(end + 1) // (8 * _WORD)) * _WORD
        self._end = end  # the bit that says that the text may end here
        self._name = name
        self.over = False  # nothing can follow: whatever token is drawn now is no part of the text

    @property
    def finished(self) -> bool:
        """The text is complete, and nothing can follow."""
        return self._inner.is_stopped() and self._inner.is_accepting()

    @property
    def accepting(self) -> bool:
        """The text may end here."""
        return self._inner.is_accepting()

    def refusal(self) -> BadRequest:
        """Say why nothing may follow a text that may not end here either."""
        try:
            row = memoryview(bytearray(self.row_bytes))
            self.write(row)
            self.allow(row, ())
        except BadRequest as error:
            return error
        return BadRequest(f"{self._name} {trouble('NoExtension')}")

    def take(self, token: int) -> None:
        """The text goes on with this token. Raises BadRequest when it may not, or the language becomes too costly."""
        self._inner.consume_token(token)
        self.check()

    def allow(self, row: memoryview, ends: Collection[int], barred: Collection[int] = ()) -> None:
        """Complete the language's own row: `ends`, which end a text, where it may end; `barred` if others remain.

        Raises BadRequest when nothing may come and the text may not end either, or the language is too costly.
        """
        self.check()
        accepting = _bit(row, self._end)
        _clear(row, (self._end,))
        if accepting:
            _set(row, ends, below=self._end)
        if barred:
            before = bytes(row)
            _clear(row, barred)
            if not _any(row):
                row[:] = before
        if _any(row):
            return
        if not accepting:
            raise BadRequest(f"{self._name} {trouble('NoExtension')}")
        self.over = True
        row[:] = b"\xff" * len(row)

    def check(self) -> None:
        """Raise BadRequest when the language cannot be followed any further."""
        if self._inner.is_error():
            raise BadRequest(f"{self._name} {trouble(self._inner.get_error())}")

    def write(self, row: memoryview) -> None:
        """Write the language's own row, to be completed by `allow`."""
        self._inner.unsafe_compute_mask_ptr(_address(row), len(row))

    @property
    def inner(self) -> LLMatcher:
        """For `Rows`."""
        return self._inner


class Grammars:
    """The tokens of one model. Making it takes a second for a large vocabulary and holds the GIL: at start only.

    Tokens are below `vocabulary`, which is the model's: a tokenizer may know more, or fewer.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._end = vocabulary  # a token of our own ends a text: which of the model's do is each request's matter
        self._tokens = LLTokenizer(_Wrapper(tokenizer, vocabulary), n_vocab=vocabulary + 1, eos_token=vocabulary)  # type: ignore[arg-type]  # it is no subclass

    def matcher(self, constraint: Constraint, generated: list[int]) -> Matcher:
        """Follow a text that has `generated` already. Takes a millisecond, or a second for a large one: use a thread.

        Raises BadRequest for a constraint that cannot be used, or that the generated text does not fulfil.
        """
        name = name_of(constraint)
        inner = LLMatcher(self._tokens, compiled(constraint), log_level=0, limits=LIMITS)
        if inner.is_error():
            raise BadRequest(f"{name} cannot be used: {shortened(inner.get_error())}")
        matcher = Matcher(inner, self._end, name)
        if generated:
            inner.consume_tokens(generated)
            matcher.check()
        matcher.write(memoryview(bytearray(matcher.row_bytes)))  # it is kept: often the costliest
        matcher.check()
        return matcher


class Rows:
    """Writes the rows of a whole batch at once, in threads of its own where there are several."""

    def __init__(self) -> None:
        self._executor: LLExecutor | None = None

    def write(self, matchers: Sequence[Matcher], rows: memoryview) -> None:
        """Write each matcher's own row, one after another."""
        if len(matchers) == 1:
            matchers[0].write(rows)
            return
        if self._executor is None:
            self._executor = LLExecutor(min(MOST_THREADS, os.cpu_count() or 1))
        pairs = [(matcher.inner, place) for place, matcher in enumerate(matchers)]
        self._executor.unsafe_compute_mask_ptr(pairs, _address(rows), len(rows) // len(pairs), len(pairs))


class _Wrapper:
    """A tokenizer as llguidance wants it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary
        self.tokens: list[bytes] = []
        self.special_token_ids: list[int] = []
        for token in range(vocabulary):
            raw = tokenizer.shown(token)
            if not raw:  # a special token: no text matches it, only its name in angle brackets
                raw = tokenizer.piece(token)[1]
                if raw:
                    self.special_token_ids.append(token)
            self.tokens.append(raw)
        self._special = frozenset(self.special_token_ids)
        self.tokens.append(b"<|end of the text|>")
        self.special_token_ids.append(vocabulary)

    def __call__(self, text: str) -> list[int]:
        """How the model would write text that must come; the name of a special token is text like any other."""
        found = self._tokenizer.encode(text, special=False)
        if not self._special.isdisjoint(found):
            found = [token for part in self._parts(text) for token in self._tokenizer.encode(part, special=False)]
        return list(takewhile(lambda token: token < self._vocabulary and token not in self._special, found))

    def _parts(self, text: str) -> list[str]:
        """The text cut behind the first character of each special token's name, so that it is not taken for one."""
        names = (self._tokenizer.piece(token)[0] for token in self._special if token < self._vocabulary)
        cuts = [found.start() + 1 for found in re.finditer("|".join(map(re.escape, names)), text)]
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _bit(row: memoryview, bit: int) -> bool:
    return bool(row[bit >> 3] & (1 << (bit & 7)))


def _set(row: memoryview, bits: Collection[int], below: int) -> None:
    for bit in bits:
        if bit < below:  # stop tokens are anyone's numbers
            row[bit >> 3] |= 1 << (bit & 7)


def _clear(row: memoryview, bits: Collection[int]) -> None:
    for bit in bits:
        if bit < 8 * len(row):
            row[bit >> 3] &= ~(1 << (bit & 7))


def _any(row: memoryview) -> bool:
    """Whether a bit is set."""
    return bytes(row).count(0) != len(row)


def _address(row: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(row))
