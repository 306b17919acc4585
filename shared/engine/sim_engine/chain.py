"""What the sim engine computes in place of a model: KV rows, and the tokens that follow from them.

Pure. The row of a position is filled with a number made of the token there and of everything before it. `state` is the
digest of all rows from the first on, taken from the bytes that are really there. The next token is a hash of the state,
so one byte that is lost, stale or damaged in the hand-off changes every token after it; and a continued request, whose
rows are computed anew from prompt and generated tokens, goes on exactly where it stopped.
"""

import struct
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Final

from xxhash import xxh3_64_intdigest

from shared.messages import Sampling

EMPTY: Final = 0
"""The state before the first token."""
_WORD: Final = 8
_U64: Final = (1 << 64) - 1
_DRAW: Final = struct.Struct("<QQQ")
_FILL_BYTES: Final = 1 << 20
CLOSING_ONE_IN: Final = 4

PRINTABLE: Final = tuple(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .")
"""The tokens drawn where tokens are bytes: each is a character of its own."""


def row_number(state: int, token: int) -> int:
    """What the row of `token`, coming after everything in `state`, is filled with."""
    return xxh3_64_intdigest(token.to_bytes(4, "little"), state)


def absorb(state: int, number: int) -> int:
    """The state once a row with that number is held too."""
    return xxh3_64_intdigest(number.to_bytes(_WORD, "little"), state)


def compute(tokens: Iterable[int]) -> tuple[list[int], int]:
    """Prefill: the number of each token's row, and the state that holds them all."""
    state = EMPTY
    numbers = []
    for token in tokens:
        number = row_number(state, token)
        numbers.append(number)
        state = absorb(state, number)
    return numbers, state


def write_rows(
    buffer: memoryview, numbers: list[int], width: int, wanted: Callable[[], bool], *, rows: range | None = None
) -> None:
    """Export: fill the buffer with rows of `width` bytes and, behind the last one, with zeros. Stops when not `wanted`.

    `rows`: only these, one after another; None: all.
    """
    rows = range(len(numbers)) if rows is None else rows
    at_once = max(1, _FILL_BYTES // width)
    for start in range(rows.start, rows.stop, at_once):
        if not wanted():
            return
        some = numbers[start : min(start + at_once, rows.stop)]
        filled = b"".join(_row(number.to_bytes(_WORD, "little"), width) for number in some)
        buffer[start * width : start * width + len(filled)] = filled
    end = len(numbers) * width
    if rows.stop == len(numbers):
        buffer[end:] = bytes(len(buffer) - end)


def read_rows(buffer: memoryview, count: int, width: int, wanted: Callable[[], bool]) -> int:
    """Import: the state of the rows that the buffer holds. Stops when not `wanted`."""
    state = EMPTY
    for start in range(0, count * width, width):
        if not wanted():
            break
        row = bytes(buffer[start : start + width])
        word = row[:_WORD]
        intact = row == _row(word, width)
        state = absorb(state, int.from_bytes(word, "little") if intact else xxh3_64_intdigest(row))
    return state


def _row(word: bytes, width: int) -> bytes:
    return (word * -(-width // _WORD))[:width]


class Vocabulary:
    """The tokens that may be drawn, and how often the end of the text is.

    Under a constraint these are all that it allows. `closing` are tokens that bring such a text nearer to its end, the
    end itself among them: every fourth is one of them, where there is one, or most texts would not end.
    """

    def __init__(
        self, tokens: tuple[int, ...], eos_ids: Collection[int], eos_one_in: int, closing: Collection[int] = ()
    ) -> None:
        self._tokens = tokens
        self._size = 1 + max((*tokens, *closing, *eos_ids))
        self._plain = as_bits(tokens)
        self._closing = as_bits((*closing, *eos_ids))
        self._places = {token: place for place, token in enumerate(tokens)}
        self._eos = min(eos_ids) if eos_ids and eos_one_in else None
        self._eos_one_in = eos_one_in

    def draw(self, state: int, position: int, sampling: Sampling, barred: Collection[int] = ()) -> int:
        """The token at `position` after everything in `state`: above temperature 0 also by seed and choice."""
        drawn = xxh3_64_intdigest(_drawn_by(position, sampling), state)
        if self._eos is not None and self._eos not in barred and (drawn >> 32) % self._eos_one_in == 0:
            return self._eos
        place = drawn % len(self._tokens)
        if not barred:
            return self._tokens[place]
        return next(iter(self._after(place, barred)), self._tokens[place])

    def draw_allowed(self, state: int, position: int, sampling: Sampling, allowed: int) -> int:
        """Draw one of the tokens whose bits are set in `allowed`, as `draw` does: plain ones rather than others."""
        drawn = xxh3_64_intdigest(_drawn_by(position, sampling), state)
        closing = self._closing if (drawn >> 32) % CLOSING_ONE_IN == 0 else 0
        some = allowed & closing or allowed & self._plain or allowed
        place = drawn % self._size
        after = some >> place
        return place + _lowest(after) if after else _lowest(some)

    def likeliest(self, token: int, count: int) -> list[int]:
        """`token` first, then the others that make up its alternatives."""
        others = self._after(self._places.get(token, 0) + 1, (token,))
        return [token, *islice(others, max(0, count - 1))]

    def _after(self, place: int, barred: Collection[int]) -> Iterable[int]:
        size = len(self._tokens)
        tokens = (self._tokens[(place + step) % size] for step in range(size))
        return (token for token in tokens if token not in barred)


def as_bits(tokens: Iterable[int]) -> int:
    """One bit per token."""
    row = bytearray()
    for token in sorted(tokens):
        row.extend(bytes((token >> 3) + 1 - len(row)))
        row[token >> 3] |= 1 << (token & 7)
    return int.from_bytes(row, "little")


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _drawn_by(position: int, sampling: Sampling) -> bytes:
    if sampling.temperature <= 0:
        return b""
    return _DRAW.pack(position, sampling.seed & _U64, sampling.choice & _U64)


def oracle(tokens: list[int], count: int, sampling: Sampling, vocabulary: Vocabulary) -> list[int]:
    """The next `count` tokens after `tokens`, when no byte is lost and nothing ends the text."""
    _, state = compute(tokens)
    drawn: list[int] = []
    for position in range(len(tokens), len(tokens) + count):
        token = vocabulary.draw(state, position, sampling)
        drawn.append(token)
        state = absorb(state, row_number(state, token))
    return drawn
