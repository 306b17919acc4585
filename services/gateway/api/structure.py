"""Forms that a client may demand of the text: JSON, a schema, a regular expression, a grammar, a choice.

Owns the way from the parameters to a Constraint. Whether the constraint can be honoured is found out elsewhere.
"""

import json
from typing import Annotated, Any, Final

import msgspec
from llguidance.gbnf_to_lark import any_to_lark
from msgspec import Meta

from shared.errors import BadRequest
from shared.messages import Constraint
from shared.text.grammar import check

MOST_BYTES: Final = 64 * 1024
"""Of a schema, a grammar, an expression, or all schemas of a request's functions: they travel with the prompt."""
ANY_OBJECT: Final = '{"type":"object"}'

Words = Annotated[list[Annotated[str, Meta(min_length=1, max_length=4096)]], Meta(min_length=1, max_length=1024)]
Schema = dict[str, Any] | str


class SchemaFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named JSON Schema. Every keyword is honoured or refused, strict or not."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}(?!\n)$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class AsText(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text", tag_field="type"):
    """Any text."""


class AsObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="json_object", tag_field="type"):
    """Any JSON object."""


class AsSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="json_schema", tag_field="type"):
    """JSON that fits a schema."""

    json_schema: SchemaFormat


ResponseFormat = AsText | AsObject | AsSchema


class StructuredOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's way to say it: one of these."""

    json: Schema | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Words | None = None
    grammar: str | None = None


class Demanded(msgspec.Struct, frozen=True):
    """A constraint and the parameter that asks for it."""

    constraint: Constraint
    param: str


def of_format(asked: ResponseFormat | None) -> list[Demanded]:
    """What response_format demands."""
    match asked:
        case AsObject():
            return [Demanded(Constraint("json_schema", ANY_OBJECT), "response_format")]
        case AsSchema():
            param = "response_format.json_schema.schema"
            return [Demanded(Constraint("json_schema", _written(asked.json_schema.schema, param)), param)]
        case _:
            return []


def of_outputs(asked: StructuredOutputs | None, prefix: str) -> list[Demanded]:
    """What vLLM's parameters demand; `prefix` is where they stand."""
    if asked is None:
        return []
    found = []
    if asked.json is not None:
        found.append(Demanded(Constraint("json_schema", _written(asked.json, f"{prefix}json")), f"{prefix}json"))
    if asked.json_object:
        found.append(Demanded(Constraint("json_schema", ANY_OBJECT), f"{prefix}json_object"))
    if asked.regex is not None:
        found.append(Demanded(Constraint("regex", _bounded(asked.regex, f"{prefix}regex")), f"{prefix}regex"))
    if asked.choice is not None:
        # Lark takes no control character as it is, and DEL is the one that JSON does not spell out
        words = " | ".join(json.dumps(word, ensure_ascii=False).replace("\x7f", r"\u007f") for word in asked.choice)
        found.append(Demanded(Constraint("lark", _bounded(f"start: {words}", f"{prefix}choice")), f"{prefix}choice"))
    if asked.grammar is not None:
        found.append(Demanded(Constraint("lark", _bounded(asked.grammar, f"{prefix}grammar")), f"{prefix}grammar"))
    return found


def only_one(demands: list[Demanded]) -> Demanded | None:
    """Take the one demand there may be. Raises BadRequest where there are more."""
    if len(demands) > 1:
        raise BadRequest(f"{demands[0].param} and {demands[1].param} demand two forms; give one", demands[1].param)
    return demands[0] if demands else None


def _written(schema: Schema, param: str) -> str:
    try:
        text = schema if isinstance(schema, str) else msgspec.json.encode(schema).decode()
    except (RecursionError, TypeError, ValueError) as error:
        raise BadRequest(f"the JSON schema is nested too deeply, or is no JSON: {error}", param) from None
    return _bounded(text, param)


def _bounded(text: str, param: str) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise BadRequest(f"{param} has {size} bytes; {MOST_BYTES} are allowed", param)
    return text


def settled(demanded: Demanded) -> Constraint:
    """See that a demand can be met. A long one takes time: use a thread. Raises BadRequest that names the parameter."""
    constraint = demanded.constraint
    if demanded.param.endswith("grammar"):
        constraint = Constraint("lark", _lark(constraint.text, demanded.param))
    try:
        check(constraint)
    except BadRequest as error:
        raise BadRequest(str(error), demanded.param) from None
    return constraint


def _lark(grammar: str, param: str) -> str:
    """A Lark grammar, or one in GBNF, which is rewritten."""
    try:
        return any_to_lark(grammar)
    except Exception as error:  # noqa: BLE001  the package raises plain Exception, and IndexError, for faults of the text
        raise BadRequest(f"the grammar is neither Lark nor GBNF: {error}", param) from None
