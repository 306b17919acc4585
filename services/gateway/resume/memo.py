"""The memo that travels with each streamed request, for the gateway that may have to resume its stream.

Owns its form: what the client asked but for its words, which travel as tokens anyway. Workers carry it unread.
"""

import zlib
from typing import Final

import msgspec

from services.gateway.answers.forms import Asked
from services.gateway.api.chat import ChatMessage, ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.responses import ResponsesRequest
from shared.errors import UnknownStream
from shared.messages import MAX_MEMO_BYTES

PACKED_ABOVE: Final = 1024
"""Bytes; packing less is not worth the time."""
MOST_UNPACKED: Final = 4 << 20
_SHAPES: Final[dict[str, type[Asked]]] = {"chat": ChatRequest, "text": CompletionRequest, "response": ResponsesRequest}


class Memo(msgspec.Struct, frozen=True, array_like=True):
    """`choices`: of the whole call. `asked`: JSON, packed where `packed`."""

    kind: str
    created: int
    choices: int
    packed: bool
    asked: bytes

    def read(self) -> Asked:
        """Say what the client asked, without its words. Raises UnknownStream."""
        try:
            data = self.asked
            if self.packed:
                data = zlib.decompressobj().decompress(data, MOST_UNPACKED)
            return msgspec.json.decode(data, type=_SHAPES[self.kind])
        except (KeyError, ValueError, zlib.error) as error:
            raise UnknownStream(f"this stream began at a gateway of another version: {error}") from None


def write_memo(asked: Asked, created: int, choices: int, *, guarded: bool) -> bytes:
    """Note how a stream's answer looks; nothing where it cannot be resumed.

    That is: it is not streamed, the memo is too large to travel along, or it is a moderated response, whose numbered
    events would not be cut alike again.
    """
    if not asked.stream or (guarded and isinstance(asked, ResponsesRequest)):
        return b""
    kind = next(kind for kind, shape in _SHAPES.items() if type(asked) is shape)
    data = msgspec.json.encode(_wordless(asked))
    packed = len(data) > PACKED_ABOVE
    memo = Memo(kind, created, choices, packed, zlib.compress(data, 1) if packed else data)
    encoded = msgspec.msgpack.encode(memo)
    return encoded if len(encoded) <= MAX_MEMO_BYTES else b""


def read_memo(data: bytes) -> Memo:
    """Read a memo. Raises UnknownStream."""
    try:
        return msgspec.msgpack.decode(data, type=Memo)
    except ValueError as error:
        raise UnknownStream(f"this stream began at a gateway of another version: {error}") from None


def _wordless(asked: Asked) -> Asked:
    """Leave out the prompt, but for one that is shown before the answer."""
    match asked:
        case ChatRequest():
            return msgspec.structs.replace(asked, messages=[ChatMessage(role="user", content="")])
        case CompletionRequest():
            prompt = asked.prompt if asked.echo else [""] * len(asked.prompts())
            return msgspec.structs.replace(asked, prompt=prompt)
        case ResponsesRequest():
            return msgspec.structs.replace(asked, input="")
