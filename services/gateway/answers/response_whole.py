"""A response that is not streamed: collected, and sent as one JSON body.

Owns the text until it is complete.
"""

from services.gateway.answers.responses import Json, ResponseShape, status, text_part
from services.gateway.answers.shapes import ChatShape, Usage, encode
from services.gateway.answers.whole import Collected


class WholeResponse:
    """One whole response, to be sent once."""

    def __init__(self, shape: ResponseShape) -> None:
        self._shape = shape
        self._choice = Collected()

    def sink(self, choice: int, request_id: str) -> Collected:  # noqa: ARG002  there is only one choice
        """Make the sink of the one choice."""
        return self._choice

    def body(self, usage: Usage) -> bytes:
        """Make the JSON body; the choice is complete."""
        whole = self._choice.whole(ChatShape("", 0, ""))
        state = status(whole.reason)
        output: list[Json] = []
        if whole.text or not whole.calls:
            logprobs = (whole.logprobs or {}).get("content", [])
            output.append(self._shape.message(0, state, [text_part(whole.text, logprobs)]))
        for call in whole.calls:
            output.append(self._shape.function_call(len(output), state, call, call.arguments))
        return encode(self._shape.whole(output, usage, whole.reason))
