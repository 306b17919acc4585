"""How families of models write calls of functions.

Owns the spellings. A scenario's format is configured, or recognised by its chat template.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

Find = Callable[[str], int | None]
"""The id of a special token by its text; None where the text is no special token."""

OPEN_MISTRAL: Final = "[TOOL_CALLS]"
ARGS_MISTRAL: Final = "[ARGS]"
OPEN_HERMES: Final = "<tool_call>"
CLOSE_HERMES: Final = "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One way of writing calls. Markers that are special tokens of the model have ids."""

    name: str  # hermes | llama3 | mistral | json
    key: str  # what the arguments are called
    opener: str = ""  # empty: a call is an object at the beginning of a line
    closer: str = ""
    separator: str = "\n"  # between two calls
    named: bool = False  # mistral's newer form: opener, name, [ARGS], arguments
    special: tuple[tuple[str, int], ...] = ()  # markers that are special tokens, with their ids

    def call(self, name: str, arguments: str) -> str:
        """Spell one call, without the opener that may stand before several."""
        return f'{{"name": {json.dumps(name)}, "{self.key}": {arguments}}}'

    def calls(self, calls: Sequence[tuple[str, str]]) -> str:
        """Spell an answer that consists of calls: pairs of a name and arguments as JSON."""
        if self.name == "hermes":
            return self.separator.join(f"{self.opener}\n{self.call(*one)}\n{self.closer}" for one in calls)
        if self.name != "mistral":
            return self.separator.join(self.call(*one) for one in calls)
        if self.named:
            return "".join(f"{self.opener}{name}{ARGS_MISTRAL}{arguments}" for name, arguments in calls)
        return f"{self.opener}[{', '.join(self.call(*one) for one in calls)}]"

    @property
    def shown(self) -> list[int]:
        """The special tokens whose text must be seen, because it says where calls are."""
        return [token for _, token in self.special]


FORMATS: Final = {
    "hermes": ToolFormat("hermes", "arguments", OPEN_HERMES, CLOSE_HERMES),
    "llama3": ToolFormat("llama3", "parameters", separator="; "),
    "mistral": ToolFormat("mistral", "arguments", OPEN_MISTRAL, separator=", "),
    "json": ToolFormat("json", "arguments"),
}


def choose(setting: str, template: str, find: Find) -> ToolFormat:
    """Find the format of a model: as configured, or for "auto" as its chat template writes calls."""
    plain = FORMATS[_recognised(template) if setting == "auto" else setting]
    named = plain.name == "mistral" and ARGS_MISTRAL in template
    markers = [marker for marker in (plain.opener, plain.closer, ARGS_MISTRAL if named else "") if marker]
    special = tuple((marker, token) for marker in markers if (token := find(marker)) is not None)
    return ToolFormat(plain.name, plain.key, plain.opener, plain.closer, plain.separator, named, special)


def _recognised(template: str) -> str:
    for mark, name in ((OPEN_MISTRAL, "mistral"), (OPEN_HERMES, "hermes"), ("<|python_tag|>", "llama3")):
        if mark in template:
            return name
    # Llama 3's shorter templates have no marker of their own, but this role and this key
    return "llama3" if "ipython" in template and '"parameters"' in template else "json"


def instructions(form: ToolFormat, tools: Sequence[dict[str, Any]]) -> str:
    """Tell a model whose chat template has no place for functions which there are and how to call them."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    example = form.calls([("function_name", '{"parameter": "value"}')])
    return (
        f"You can call these functions, each described as JSON:\n{listed}\n"
        f"To call one, answer with nothing but a line of this form:\n{example}\n"
        "To call several, write one after another in the same form. Otherwise answer in words."
    )
