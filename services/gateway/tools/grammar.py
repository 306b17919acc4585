"""Grammars that leave a model no other way to write calls than the one that the gateway reads.

Owns the Lark text, in llguidance's dialect. Each function's JSON Schema stands in it as it is, so that its references
still start at its own root. Pure but for the check of schemas.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from services.gateway.tools.formats import ARGS_MISTRAL, ToolFormat
from shared.errors import BadRequest
from shared.messages import Constraint
from shared.text.grammar import JSON_OPTIONS, check

_SPACING: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As templates write JSON, which is what models have learned. With free spacing a weak model writes spaces for ever."""
_LENIENT: Final = {"lenient": True, "coerce_one_of": True}
_ANY_TEXT: Final = "TEXT: /(.|\\n)*/"
_LINE: Final = r"[ \t]*([^{\[\s][^\n]*)?"
_PLAIN_TEXT: Final = f"TEXT: /{_LINE}(\\n{_LINE})*/\nLEAD: /({_LINE}\\n)+/"
"""Lines that do not begin as a call does."""


class Function:
    """One function, with the schema that its arguments are held to."""

    def __init__(self, name: str, parameters: dict[str, Any], *, strict: bool, param: str) -> None:
        self.name = name
        self.schema = _schema(parameters, strict=strict, param=param)


def _schema(parameters: dict[str, Any], *, strict: bool, param: str) -> str:
    """A schema for use inside a grammar. One that is not strict holds as far as it can be held to."""
    if parameters.get("type", "object") != "object":
        raise BadRequest("a function's parameters are an object: give a schema of type object", param)
    own = parameters.get("x-guidance")
    options = {**(own if isinstance(own, dict) else {}), **_SPACING, **({} if strict else _LENIENT)}
    schema = json.dumps({"type": "object", **parameters, "x-guidance": options}, ensure_ascii=False)
    wrong = _wrong(schema)
    if wrong and strict:
        raise BadRequest(wrong, param)
    return json.dumps({"type": "object", "x-guidance": options}) if wrong else schema


@lru_cache(maxsize=512)  # the same functions come with each turn of a conversation
def _wrong(schema: str) -> str:
    """Say why a schema cannot be held to; nothing when it can."""
    try:
        check(Constraint("lark", f"start: %json {schema}"))
    except BadRequest as error:
        return str(error)
    return ""


def calls_only(form: ToolFormat, functions: Sequence[Function], *, single: bool) -> Constraint:
    """Demand at least one call, and nothing else."""
    rules = _rules(form, functions, single=single)
    return Constraint("lark", "\n".join(["start: calls", *rules]))


def calls_or_text(form: ToolFormat, functions: Sequence[Function], *, single: bool, schema: str = "") -> Constraint:
    """Allow any text with calls in it; `schema`: where there is no call, the answer is JSON that fits it."""
    rules = _rules(form, functions, single=single, apart=not schema)
    if schema:
        return Constraint("lark", "\n".join(["start: calls | answer", f"answer: %json {_answer(schema)}", *rules]))
    if not form.opener:
        return Constraint("lark", "\n".join(["start: calls | TEXT | LEAD calls", *rules, _PLAIN_TEXT]))
    if form.name == "mistral" and not form.named:
        return Constraint("lark", "\n".join(["start: lead body | TEXT", *_lead(form), *rules, _ANY_TEXT]))
    start = "start: lead body | TEXT" if single else "start: (lead body)* TEXT"
    return Constraint("lark", "\n".join([start, *_lead(form), *rules, _ANY_TEXT]))


def _answer(schema: str) -> str:
    """The schema of an answer, held to as it is where it stands alone. `true`, which says nothing, is a schema too."""
    said = json.loads(schema)
    return json.dumps({**(said if isinstance(said, dict) else {}), "x-guidance": JSON_OPTIONS}, ensure_ascii=False)


def _lead(form: ToolFormat) -> list[str]:
    """Any text up to and including the opener."""
    special = dict(form.special).get(form.opener)
    return [f"lead: TEXT <[{special}]>"] if special is not None else [f"lead[lazy]: TEXT {_quoted(form.opener)}"]


def _rules(form: ToolFormat, functions: Sequence[Function], *, single: bool, apart: bool = True) -> list[str]:
    """`calls`: one or more; `body`: what follows an opener. `apart`: nothing else may begin as a call does."""
    opener, closer = _marker(form, form.opener), _marker(form, form.closer)
    more = "" if single else f" ({_quoted(form.separator)} call)*"
    bodies = [_body(form, function) if apart or form.opener else _object(form, function) for function in functions]
    each = " | ".join(f"body_{place}" for place in range(len(bodies)))
    rules = [f"body_{place}: {body}" for place, body in enumerate(bodies)]
    if form.name == "hermes":
        return [f"calls: call{more}", f"call: {opener} body", f'body: "\\n" ({each}) "\\n" {closer}', *rules]
    if form.name == "mistral" and form.named:
        many = "" if single else "+"
        return [f"calls: call{many}", f"call: {opener} body", f"body: {each}", *rules]
    if form.name == "mistral":
        return [f"calls: {opener} body", f'body: "[" call{more} "]"', f"call: {each}", *rules]
    return [f"calls: call{more}", f"call: {each}", *rules]


def _body(form: ToolFormat, function: Function) -> str:
    if form.named:
        return f"{_quoted(function.name)} {_marker(form, ARGS_MISTRAL)} %json {function.schema}"
    before = f'{{"name": {json.dumps(function.name)}, "{form.key}": '
    return f'{_quoted(before)} %json {function.schema} "}}"'


def _object(form: ToolFormat, function: Function) -> str:
    """Write a call as JSON in whole: a fixed beginning would keep other JSON from beginning alike."""
    parameters = json.loads(function.schema)
    spacing = parameters.pop("x-guidance")
    properties = {"name": {"const": function.name}, form.key: _moved(parameters, f"#/properties/{form.key}")}
    required = list(properties)
    whole = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return f"%json {json.dumps({**whole, 'x-guidance': spacing}, ensure_ascii=False)}"


def _moved(schema: object, root: str) -> object:
    """Copy a schema whose root lies elsewhere now: references to it follow."""
    if isinstance(schema, list):
        return [_moved(one, root) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"{root}{value[1:]}" if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, root)
        for key, value in schema.items()
    }  # fmt: skip


def _marker(form: ToolFormat, text: str) -> str:
    special = dict(form.special).get(text)
    return _quoted(text) if special is None else f"<[{special}]>"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
