"""The items of the Responses API's input: messages, calls of functions, and what functions returned.

Owns the way from items to the turns of a chat.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from services.gateway.api.messages import ChatMessage, RefusalPart, TextPart
from services.gateway.api.tools import CalledFunction, CallId, FunctionName, ToolCall
from shared.errors import BadRequest

Label = Annotated[str, Meta(max_length=512)]


class InputText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="input_text", tag_field="type"):
    """What a user, a developer or a function says."""

    text: str


class OutputText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="output_text", tag_field="type"):
    """What the assistant said earlier, as a client got it; only the text goes into the prompt."""

    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refusal", tag_field="type"):
    """What the assistant refused earlier."""

    refusal: str


Parts = list[InputText | OutputText | Refusal]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item of the input. Which fields it has depends on its type; a message need not say that it is one."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts | None = None
    call_id: CallId | None = None
    name: FunctionName | None = None
    arguments: str | None = None
    output: str | Parts | None = None
    id: Label | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    def check(self, where: str) -> None:
        """See that what its type needs is there, and nothing else. Raises BadRequest."""
        needed = _FIELDS[self.type]
        for name in ("role", "content", "call_id", "name", "arguments", "output"):
            given = getattr(self, name) is not None
            if given and name not in needed:
                raise BadRequest(f"'{where}.{name}' does not belong to an item of type {self.type}", f"{where}.{name}")
            if name in needed and not given:
                raise BadRequest(f"Missing required parameter: '{where}.{name}'", f"{where}.{name}")
        if self.role != "assistant" and any(isinstance(part, Refusal) for part in self.content or ()):
            raise BadRequest(f"Invalid value for '{where}.content': only the assistant refuses", f"{where}.content")


_FIELDS: Final = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


def check_items(items: list[Item]) -> None:
    """See that each item is whole, and that outputs belong to calls that were made before. Raises BadRequest."""
    called: set[str | None] = set()
    for place, item in enumerate(items):
        item.check(f"input[{place}]")
        if item.type == "function_call":
            called.add(item.call_id)
        elif item.type == "function_call_output" and item.call_id not in called:
            param = f"input[{place}].call_id"
            raise BadRequest(f"'{param}' is the call_id of no function_call earlier in the input", param)


def turns_of(items: list[Item]) -> list[ChatMessage]:
    """Say the same as the turns of a chat. Calls belong to the turn of the assistant's that they follow."""
    turns: list[ChatMessage] = []
    for item in items:
        if item.type == "function_call":
            call = ToolCall(id=item.call_id or "", function=CalledFunction(item.name or "", item.arguments or ""))
            last = turns.pop() if turns and turns[-1].role == "assistant" else ChatMessage(role="assistant")
            turns.append(msgspec.structs.replace(last, tool_calls=[*(last.tool_calls or []), call]))
        elif item.type == "function_call_output":
            turns.append(ChatMessage(role="tool", content=_content(item.output), tool_call_id=item.call_id))
        else:
            turns.append(ChatMessage(role=item.role or "user", content=_content(item.content)))
    return turns


def _content(said: str | Parts | None) -> str | list[TextPart | RefusalPart]:
    if not isinstance(said, list):
        return said or ""
    return [
        RefusalPart(refusal=part.refusal) if isinstance(part, Refusal) else TextPart(text=part.text) for part in said
    ]
