"""The output item of a streamed response that is growing: a message, or a call of a function.

Owns what is known of the item so far. Numbers no events and writes none.
"""

from services.gateway.answers.responses import Events, Json, ResponseShape, text_part
from services.gateway.tools.said import CallPiece


class Message:
    """A message with one part, its text."""

    __slots__ = ("_shape", "logprobs", "place", "texts")

    def __init__(self, shape: ResponseShape, place: int) -> None:
        self.place = place
        self.texts: list[str] = []
        self.logprobs: list[Json] = []
        self._shape = shape

    def begin(self) -> Events:
        """Tell that there is a message."""
        item = self._shape.message(self.place, "in_progress", [])
        return [
            ("response.output_item.added", {"output_index": self.place, "item": item}),
            ("response.content_part.added", self._shape.text_place(self.place) | {"part": text_part("", [])}),
        ]

    def item(self, state: str) -> Json:
        """Make the item as it is now."""
        return self._shape.message(self.place, state, [text_part("".join(self.texts), self.logprobs)])

    def end(self, item: Json) -> Events:
        """Tell that it is complete."""
        where, (part,) = self._shape.text_place(self.place), item["content"]
        return [
            ("response.output_text.done", where | {"text": part["text"], "logprobs": self.logprobs}),
            ("response.content_part.done", where | {"part": part}),
            ("response.output_item.done", {"output_index": self.place, "item": item}),
        ]


class FunctionCall:
    """A call; what its pieces bring is told at once."""

    __slots__ = ("_arguments", "_first", "_shape", "place")

    def __init__(self, shape: ResponseShape, place: int, first: CallPiece) -> None:
        self.place = place
        self._shape = shape
        self._first = first
        self._arguments: list[str] = []

    def begin(self) -> Events:
        """Tell that there is a call."""
        item = self._shape.function_call(self.place, "in_progress", self._first, "")
        return [("response.output_item.added", {"output_index": self.place, "item": item})]

    def grow(self, arguments: str) -> Events:
        """Tell more of its arguments."""
        if not arguments:
            return []
        self._arguments.append(arguments)
        return [("response.function_call_arguments.delta", self._where() | {"delta": arguments})]

    def item(self, state: str) -> Json:
        """Make the item as it is now."""
        return self._shape.function_call(self.place, state, self._first, "".join(self._arguments))

    def end(self, item: Json) -> Events:
        """Tell that it is complete."""
        said = {"name": item["name"], "arguments": item["arguments"]}
        return [
            ("response.function_call_arguments.done", self._where() | said),
            ("response.output_item.done", {"output_index": self.place, "item": item}),
        ]

    def _where(self) -> Json:
        return {"item_id": self._shape.item_id("fc", self.place), "output_index": self.place}
