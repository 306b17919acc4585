"""Languages that generated text must belong to: JSON Schemas, regular expressions and Lark grammars, by llguidance.

Owns the limits of what may be asked for, and the one place where such a text is read, so that gateway and engines agree
on which are good. `check` needs no tokenizer; what follows a text token by token is `matching`'s. Loads no numpy.
"""

from functools import lru_cache
from typing import Any, Final

import msgspec
from llguidance import LLMatcher, LLParserLimits

from shared.errors import BadRequest
from shared.messages import Constraint

MOST_TEXT: Final = 128 * 1024
"""Characters of a schema, expression or grammar. One so long compiles within half a second."""
SHOWN_MESSAGE: Final = 400
LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=200_000,  # of what is built, at first and later: in one step, about 100 ms
    step_lexer_fuel=200_000,  # about 15 ms, for one token
    step_max_items=50_000,  # about 3 ms, for one token
    max_lexer_states=50_000,  # up to 2 kB each
    max_grammar_size=500_000,
    verbose_errors=False,  # a message repeats nothing of other texts
)
"""What compiling, and each token after it, may cost at most."""
_JSON: Final[dict[str, Any]] = {"lenient": False, "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}"}
"""What is not supported is refused. Space between JSON's parts has a bound, or a weak model might write it for ever."""
_NAMES: Final = {"json_schema": "the JSON schema", "regex": "the regular expression", "lark": "the Lark grammar"}


def check(constraint: Constraint) -> None:
    """Raise BadRequest unless the constraint can be compiled. A long one takes time, without the GIL: use a thread.

    A special token that a Lark grammar names is looked up by the engine alone, which knows the tokens.
    """
    _check(constraint.kind, constraint.text)


def name_of(constraint: Constraint) -> str:
    """What messages call it."""
    return _NAMES[constraint.kind]


def compiled(constraint: Constraint) -> str:
    """The constraint in llguidance's own form. Raises BadRequest for what is too long, or no JSON."""
    text, name = constraint.text, name_of(constraint)
    if len(text) > MOST_TEXT:
        raise BadRequest(f"{name} has {len(text)} characters; {MOST_TEXT} are allowed")
    try:
        text.encode()
    except UnicodeError as error:
        raise BadRequest(f"{name} is not valid Unicode") from error
    match constraint.kind:
        case "json_schema":
            return _schema(text, name)
        case "regex":
            return LLMatcher.grammar_from_regex(text)
        case "lark":
            return LLMatcher.grammar_from_lark(text)


def _schema(text: str, name: str) -> str:
    """A JSON Schema compiled. It is decoded first because llguidance puts the text into JSON of its own, as it is."""
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"{name} is no JSON: {shortened(str(error))}") from error
    if schema is True:
        text = "{}"
    elif not isinstance(schema, dict):
        raise BadRequest(f"{name} must be a JSON object that something satisfies, not {shortened(text)}")
    return LLMatcher.grammar_from_json_schema(text, overrides=_JSON)  # type: ignore[arg-type]  # its TypedDict is no run-time name


def shortened(message: str) -> str:
    """One line of bounded length."""
    line = " ".join(message.split())
    return line if len(line) <= SHOWN_MESSAGE else f"{line[:SHOWN_MESSAGE]}..."


@lru_cache(maxsize=64)  # a client sends the same schema again and again; failures are not kept
def _check(kind: str, text: str) -> None:
    constraint = msgspec.convert({"kind": kind, "text": text}, Constraint)
    wrong, messages = LLMatcher.validate_grammar_with_warnings(compiled(constraint), limits=LIMITS)
    if wrong:
        raise BadRequest(f"{name_of(constraint)} cannot be used: {shortened('; '.join(messages))}")
