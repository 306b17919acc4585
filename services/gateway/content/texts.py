"""What a client says in a request: every text of it that a model would read.

Pure but for detokenising. Knows the names of fields, not their shapes, so that a new kind of message is read too.
"""

from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

FIELDS: Final = ("messages", "tools", "functions", "chat_template_kwargs", "response_format", "prompt", "suffix")
NOT_SAID: Final = frozenset({"role", "type", "id", "tool_call_id"})
"""Keys of messages whose values are names of ours."""
GRAMMAR: Final = frozenset({
    "type", "function", "name", "description", "parameters", "strict", "properties", "required", "items", "enum",
    "additionalProperties", "json_schema", "null", "schema", "object", "array", "string", "number", "integer",
    "boolean",
})  # fmt: skip
"""Words that nearly every tool has: a rule against one of them is not meant for these. A model reads all other keys and
values of a schema as the client wrote them."""


class Detokenizer(Protocol):
    """The part of a prompter that is needed here."""

    async def words(self, tokens: list[int]) -> str:
        """Text of tokens."""
        ...


async def said(asked: object, tokens: Detokenizer) -> list[str]:
    """Gather the texts: one for each message, prompt or tool."""
    texts = []
    for field in FIELDS:
        value = getattr(asked, field, None)
        if value is None:
            continue
        for part in _parts(msgspec.to_builtins(value)):
            if isinstance(part, list) and all(isinstance(one, int) for one in part):
                texts.append(await tokens.words(part))
            else:
                texts.append("\n".join(_strings(part, schema=field != "messages")))
    return [text for text in texts if text]


def _parts(value: Any) -> list[Any]:  # noqa: ANN401  whatever JSON can say
    """Split what may be judged apart; a list of numbers is one prompt."""
    if isinstance(value, list) and not any(isinstance(one, int) for one in value):
        return value
    return [value]


def _strings(value: Any, *, schema: bool) -> Iterator[str]:  # noqa: ANN401
    if isinstance(value, str):
        if not (schema and value in GRAMMAR):
            yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one, schema=schema)
    elif isinstance(value, dict):
        for key, one in value.items():
            if schema and key not in GRAMMAR:
                yield key
            if schema or key not in NOT_SAID:
                yield from _strings(one, schema=schema)
