"""Languages that generated text must belong to: JSON Schemas, regular expressions and Lark grammars, by llguidance.

Owns the limits of what may be asked for, and the one place where such a text is read, so that gateway and engines agree
on which are good. `check` needs no tokenizer; what follows a text token by token is `matching`'s. Loads no numpy.
"""

from functools import cache, lru_cache
from typing import Any, Final

import msgspec
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from shared.errors import BadRequest
from shared.messages import Constraint

MOST_TEXT: Final = 128 * 1024
"""Characters of a schema, expression or grammar. One so long compiles within half a second."""
SHOWN_MESSAGE: Final = 400
REHEARSED: Final = 32
"""Bytes of a text that `check` writes, to see that following the language costs no more than it may."""
LIMITS: Final = LLParserLimits(
    max_items_in_row=700,  # of a grammar's possible continuations: at worst about 20 ms for one token
    initial_lexer_fuel=200_000,  # of what is built, at first and later: in one step, about 100 ms
    step_lexer_fuel=200_000,  # about 15 ms, for one token
    step_max_items=50_000,  # about 3 ms, for one token
    max_lexer_states=50_000,  # up to 2 kB each
    max_grammar_size=500_000,
    verbose_errors=False,  # a message repeats nothing of other texts
)
"""What compiling, and each token after it, may cost at most."""
JSON_OPTIONS: Final[dict[str, Any]] = {"lenient": False, "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}"}
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
    try:
        return LLMatcher.grammar_from_json_schema(text, overrides=JSON_OPTIONS)  # type: ignore[arg-type]  # its TypedDict is no run-time name
    except ValueError as error:  # nested too deeply
        raise BadRequest(f"{name} cannot be used: {shortened(str(error))}") from error


def shortened(message: str) -> str:
    """One line of bounded length."""
    line = " ".join(message.split())
    return line if len(line) <= SHOWN_MESSAGE else f"{line[:SHOWN_MESSAGE]}..."


@lru_cache(maxsize=64)  # a client sends the same schema again and again; failures are not kept
def _check(kind: str, text: str) -> None:
    constraint = msgspec.convert({"kind": kind, "text": text}, Constraint)
    form, name = compiled(constraint), name_of(constraint)
    wrong, messages = LLMatcher.validate_grammar_with_warnings(form, limits=LIMITS)
    if wrong:
        raise BadRequest(f"{name} cannot be used: {shortened('; '.join(messages))}")
    if not messages:  # a warning says that tokens are named, which are not known here
        _rehearse(form, name)


def _rehearse(form: str, name: str) -> None:
    matcher = LLMatcher(_bytes(), form, log_level=0, limits=LIMITS)
    for _ in range(REHEARSED):
        allowed = int.from_bytes(matcher.compute_bitmask(), "little") & ~(1 << _Bytes.eos_token_id)
        if matcher.is_error():
            raise BadRequest(f"{name} {trouble(matcher.get_error())}")
        if not allowed or matcher.is_stopped():
            return
        visible = allowed >> ord('"')  # the quotation mark comes first, and ends strings; space could go on for ever
        some, first = (visible, ord('"')) if visible else (allowed, 0)
        matcher.consume_token(first + (some & -some).bit_length() - 1)


def trouble(error: str) -> str:
    """What went wrong in following a language, to be said after its name."""
    if error.startswith("NoExtension"):
        return "leads nowhere: none of the tokens continues the text as it asks"
    if "doesn't satisfy" in error:
        return f"does not allow what was generated: {shortened(error)}"
    return f"is too complex: {shortened(error)}"


class _Bytes:
    """A vocabulary of all bytes, as llguidance wants it."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = 256
    tokens = (*(bytes([value]) for value in range(256)), b"<|end of the text|>")
    special_token_ids = (256,)

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


@cache
def _bytes() -> LLTokenizer:
    return LLTokenizer(_Bytes(), n_vocab=257, eos_token=256)  # type: ignore[arg-type]  # it is no subclass
