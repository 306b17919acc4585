"""What a stretch of a model's text amounts to: words for the reader, and calls of functions."""

from typing import Any

import msgspec


class CallPiece(msgspec.Struct):
    """A piece of one call. The first one has id and name; the pieces of `arguments` concatenate to JSON."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""

    def delta(self) -> dict[str, Any]:
        """Make what a stream's chunk says of it."""
        if self.name is None:
            return {"index": self.index, "function": {"arguments": self.arguments}}
        return {"index": self.index, **self.whole()}

    def whole(self) -> dict[str, Any]:
        """Make what a whole message says of it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Said(msgspec.Struct):
    """Words, and the pieces of calls that follow them."""

    text: str
    calls: list[CallPiece]
