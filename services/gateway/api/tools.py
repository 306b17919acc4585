"""Functions that a model may call, as clients describe, choose and remember them."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from shared.errors import BadRequest

MOST_TOOLS: Final = 128

FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}(?!\n)$")]
CallId = Annotated[str, Meta(min_length=1, max_length=256)]


class FunctionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function. `strict`: its arguments fit the schema in every way, else as far as can be seen to."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON Schema; none: no parameters
    strict: bool | None = None


class FunctionTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="function", tag_field="type"):
    """The one kind of tool that there is here."""

    function: FunctionSpec

    def described(self) -> dict[str, Any]:
        """Say it as chat templates expect."""
        said: dict[str, Any] = {"name": self.function.name}
        if self.function.description is not None:
            said["description"] = self.function.description
        said["parameters"] = self.function.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": said}


class NamedFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function by its name."""

    name: FunctionName


class NamedChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="function", tag_field="type"):
    """This function must be called."""

    function: NamedFunction


class AllowedTools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some of the functions."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Meta(min_length=1, max_length=MOST_TOOLS)]


class AllowedChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="allowed_tools", tag_field="type"):
    """Only these functions may be called, or one of them must."""

    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedChoice | AllowedChoice


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the assistant called. Its arguments are JSON in a string, as good as the model wrote it."""

    name: FunctionName
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="function", tag_field="type"):
    """An earlier call of the assistant's."""

    id: CallId
    function: CalledFunction


class Allowed(msgspec.Struct, frozen=True):
    """The functions that count for one request. `must`: at least one is called. `places`: of each in the request."""

    tools: list[FunctionTool]
    places: list[int]
    must: bool


def allowed(tools: list[FunctionTool], choice: ToolChoice | None) -> Allowed:
    """Apply the choice to the functions. Raises BadRequest for a choice of what is not there."""
    known = {tool.function.name: place for place, tool in enumerate(tools)}
    if len(known) < len(tools):
        raise BadRequest("two functions have the same name", "tools")
    if choice == "none" or not tools:
        if choice not in (None, "none"):
            raise BadRequest("tool_choice is only allowed with tools", "tool_choice")
        return Allowed([], [], must=False)
    if isinstance(choice, NamedChoice):
        names, must = [choice.function.name], True
    elif isinstance(choice, AllowedChoice):
        names = [one.function.name for one in choice.allowed_tools.tools]
        must = choice.allowed_tools.mode == "required"
    else:
        names, must = list(known), choice == "required"
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadRequest(f"tool_choice names the function '{unknown[0]}', which is not among tools", "tool_choice")
    places = sorted({known[name] for name in names})
    return Allowed([tools[place] for place in places], places, must=must)
