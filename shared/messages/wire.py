"""What a message is: its base, its limits and its bytes.

Append only: new fields go last with a default, unknown fields are ignored, tags are never renamed or reused.
"""

from array import array
from functools import cache
from types import UnionType
from typing import Annotated, Final, TypeVar

import msgpack
import msgspec

from shared.errors import MalformedMessage

FIRST_VERSION: Final = 1
"""What instances speak that say nothing of it."""
VERSION: Final = 3
"""Of the internal protocol; carried in each status and record, compared before an instance joins a group."""
MAX_TOKENS_BYTES: Final = 900_000
"""Largest token list in a message: 225,000 tokens. NATS carries 1 MB; the rest is for parameters and headers."""

T = TypeVar("T")

Epoch = tuple[int, int]
"""(boot, counter), compared as a pair. The boot number grows when Redis has forgotten the counter."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
TokenBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_TOKENS_BYTES)]


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a message."""


class Message(Value, frozen=True, tag_field="t"):
    """A thing said over NATS. The tag is its name on the wire."""


def encode(message: Value) -> bytes:
    """The bytes of a message or a record."""
    data: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    return data


def decode(data: bytes, expected: type[T] | UnionType, what: str = "message") -> T:
    """The message in `data`, validated against `expected` (a type or a union). Raises MalformedMessage."""
    try:
        message: T = _reader(expected).decode(data)  # type: ignore[arg-type]  # types are hashable
    except (ValueError, RecursionError, OverflowError) as error:  # what the library raises on bad input
        raise MalformedMessage(what, len(data), str(error)) from error
    return message


@cache
def _reader(expected: type[T] | UnionType) -> "msgspec.msgpack.Decoder[T]":
    """Reads and validates in one pass: half the cost of `msgpack`'s objects and a look at each of them."""
    return msgspec.msgpack.Decoder(expected)


def pack_tokens(tokens: list[int]) -> bytes:
    """Token ids as little-endian uint32 bytes."""
    return array("I", tokens).tobytes()


def unpack_tokens(data: bytes) -> list[int]:
    """Token ids from little-endian uint32 bytes. Raises MalformedMessage on a length that is no multiple of four."""
    if len(data) % 4:
        raise MalformedMessage("uint32 tokens", len(data))
    return array("I", data).tolist()
