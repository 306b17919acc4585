"""The turns of a conversation, as clients tell them."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from services.gateway.api.tools import CallId, ToolCall
from shared.errors import BadRequest

_OURS: Final = ("messages", "tools", "bos_token", "eos_token", "documents")
"""Names of the chat template's that only this server may set."""

OF_A_TURN: Final = 16
"""Characters that a template writes around a turn, at least."""
SpeakerName = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f\u0085\u2028\u2029]*(?!\n)$")]
"""One line: templates write names into the line that says whose turn begins."""
TemplateVariables = Annotated[dict[str, Any], Meta(max_length=64)]


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text", tag_field="type"):
    """The one kind of content part that a text model reads."""

    text: str


class RefusalPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refusal", tag_field="type"):
    """What the assistant refused earlier, in its words."""

    refusal: str

    @property
    def text(self) -> str:
        """Its words, which go into the prompt as any others."""
        return self.refusal


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | RefusalPart] | None = None
    name: SpeakerName | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] | None = None
    tool_call_id: CallId | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # handed to chat templates that have a place for it

    @property
    def text(self) -> str:
        """The content as one string; parts are joined by line ends. A turn that was a refusal says that."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or self.refusal or ""

    @property
    def length(self) -> int:
        """Characters of all that goes into a prompt, and what a turn costs that says nothing."""
        called = sum(len(call.function.name) + len(call.function.arguments) for call in self.tool_calls or ())
        return len(self.text) + len(self.reasoning_content or "") + called + len(self.name or "") + OF_A_TURN

    def check(self, where: str) -> None:
        """See that what the role needs is there, and nothing that belongs to another. Raises BadRequest."""
        for name in ("tool_calls", "refusal", "reasoning_content"):
            if getattr(self, name) is not None and self.role != "assistant":
                raise BadRequest(f"'{where}.{name}' belongs to messages of the assistant", f"{where}.{name}")
        if self.tool_call_id is not None and self.role != "tool":
            raise BadRequest(f"'{where}.tool_call_id' belongs to messages of the role tool", f"{where}.tool_call_id")
        if self.role == "tool" and self.tool_call_id is None:
            raise BadRequest(f"Missing required parameter: '{where}.tool_call_id'", f"{where}.tool_call_id")
        if self.content is None and self.refusal is None and not self.tool_calls:
            raise BadRequest(f"Missing required parameter: '{where}.content'", f"{where}.content")
        if self.role != "assistant" and isinstance(self.content, list):
            for place, part in enumerate(self.content):
                if isinstance(part, RefusalPart):
                    where = f"{where}.content[{place}].type"
                    raise BadRequest(f"Invalid value for '{where}': only the assistant refuses", where)


def check_variables(variables: dict[str, Any] | None) -> None:
    """See that variables for the chat template are none of ours. Raises BadRequest."""
    for name in _OURS:
        if name in (variables or {}):
            param = f"chat_template_kwargs.{name}"
            raise BadRequest(f"'{param}' cannot be set here", param)


def check_turns(messages: list[ChatMessage]) -> None:
    """See that each turn is whole, and that what tools returned answers calls made before. Raises BadRequest."""
    called: set[str] = set()
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        message.check(where)
        called.update(call.id for call in message.tool_calls or ())
        if message.tool_call_id is not None and message.tool_call_id not in called:
            raise BadRequest(
                f"'{where}.tool_call_id' is the id of no tool call in an earlier message of the assistant",
                f"{where}.tool_call_id",
            )
