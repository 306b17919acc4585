"""From a regular expression to two that RE2 runs in linear time: the pattern, and its beginnings.

The beginnings match each text that some match of the pattern can start with, the empty one included. With them a stream
knows which of its last characters may still become a match, and holds back no others. Python's own parser reads the
pattern; what needs backtracking is refused. Pure.
"""

import importlib
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2

from services.gateway.content.folding import Folder

_parser: Final[Any] = importlib.import_module("re._parser")  # the module behind `re.compile`, without types

LONGEST: Final = 500
"""Characters of one pattern."""
WIDEST: Final = 1000
"""Of a count in braces: RE2's own limit."""
MAX_MEMORY: Final = 64 << 20
"""Of one compiled expression, its lazily built states included."""
LAST_ASCII: Final = 0x7F
MOST_MARKS: Final = 3
_MARKS: Final = rf"\p{{M}}{{0,{MOST_MARKS}}}"  # folded letters have their marks behind them

_CATEGORIES: Final = {
    "CATEGORY_DIGIT": r"\p{Nd}",
    "CATEGORY_NOT_DIGIT": r"\P{Nd}",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\p{L}\p{N}\p{M}_",
}
_PLACES: Final = {
    "AT_BEGINNING": r"\A",
    "AT_BEGINNING_STRING": r"\A",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
    "AT_END": r"\z",
    "AT_END_STRING": r"\z",
}
_REFUSED: Final = {
    "ASSERT": "look-ahead and look-behind",
    "ASSERT_NOT": "look-ahead and look-behind",
    "GROUPREF": "references back to a group",
    "GROUPREF_EXISTS": "references back to a group",
    "ATOMIC_GROUP": "atomic groups",
    "POSSESSIVE_REPEAT": "possessive repeats",
}


class BadPattern(ValueError):
    """Raised where a pattern cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern or a part of one, in RE2's words."""

    full: str
    begun: str  # matches what a match can begin with; with `full` it may overlap
    least: int  # folded characters of the shortest match
    width: float  # of the longest


def compiled(expression: str) -> Any:  # noqa: ANN401  re2 has no types
    """Compile for RE2. Raises BadPattern."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        words = error.args[0] if error.args else ""
        raise BadPattern(words.decode() if isinstance(words, bytes) else str(words)) from None


def translate(source: str, folder: Folder, *, ignore_case: bool) -> Pattern:
    """Read a pattern in Python's syntax. Raises BadPattern."""
    if len(source) > LONGEST:
        raise BadPattern(f"it has {len(source)} characters; the limit is {LONGEST}")
    try:
        parsed = _parser.parse(unicodedata.normalize("NFC", source))
    except (ValueError, OverflowError, RecursionError, _parser.error) as error:
        raise BadPattern(str(error)) from None
    made = _Translator(folder).sequence(parsed)
    if made.least == 0:
        raise BadPattern("it matches the empty text")
    if parsed.state.flags & re.MULTILINE:
        raise BadPattern("(?m) has no meaning: rules see line ends as spaces")
    case = "(?i)" if ignore_case or parsed.state.flags & re.IGNORECASE else ""
    made = Pattern(f"{case}{made.full}", f"{case}{made.begun}", made.least, made.width)
    compiled(made.full)
    compiled(made.begun)
    return made


class _Translator:
    """Walks what the parser found."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def sequence(self, nodes: Sequence[Any]) -> Pattern:
        full, begun, least, width = "", "", 0, 0.0
        for node in reversed(list(nodes)):
            one = self._node(str(node[0]), node[1])
            full = one.full + full
            # either all of this one has come, and the rest has begun, or this one has only begun itself
            begun = f"(?:{one.full}{begun}|{one.begun})" if one.begun else f"(?:{one.full}{begun})?"
            least += one.least
            width += one.width
        return Pattern(full, begun, least, width)

    def _node(self, kind: str, value: Any) -> Pattern:  # noqa: ANN401  whatever the parser says
        match kind:
            case "LITERAL":
                made = self._literal(value)
            case "ANY":
                made = Pattern(r"(?s:.)", "", 1, 1)
            case "NOT_LITERAL":
                made = self._members([("NEGATE", None), ("LITERAL", value)])
            case "IN":
                made = self._members(value)
            case "AT":
                made = Pattern(_PLACES[str(value)], "", 0, 0)
            case "BRANCH":
                parts = [self.sequence(part) for part in value[1]]
                full, begun = ("|".join(getattr(part, name) for part in parts) for name in ("full", "begun"))
                least, width = min(part.least for part in parts), max(part.width for part in parts)
                made = Pattern(f"(?:{full})", f"(?:{begun})", least, width)
            case "SUBPATTERN":
                made = self._group(*value)
            case "MAX_REPEAT" | "MIN_REPEAT":
                made = self._repeat(*value)
            case _:
                raise BadPattern(f"{_REFUSED.get(kind, 'a part of it')} cannot be matched in linear time")
        return made

    def _literal(self, code: int) -> Pattern:
        letters = [_code(ord(letter)) for letter in self._folder[code]]
        begun = ""
        for letter in reversed(letters[:-1]):
            begun = f"(?:{letter}{begun})?"
        full = "".join(letters)
        return Pattern(full if len(letters) == 1 else f"(?:{full})", begun, len(letters), len(letters))

    def _members(self, members: list[Any]) -> Pattern:
        negated, said, wide, marked = "", "", [], False
        for kind, value in ((str(kind), value) for kind, value in members):
            if kind == "NEGATE":
                negated = "^"
            elif kind == "CATEGORY":
                if str(value) not in _CATEGORIES:
                    raise BadPattern(r"\W is not supported; write [^\w]")
                said += _CATEGORIES[str(value)]
            elif kind == "RANGE":
                marked = marked or value[1] > LAST_ASCII
                said += f"{_code(value[0])}-{_code(value[1])}"
            elif len(folded := self._folder[value]) > 1:
                wide.append(self._literal(value))
            else:
                marked = marked or value > LAST_ASCII
                said += "".join(_code(code) for code in {value, *map(ord, folded)})
        if wide and negated:
            raise BadPattern("a letter with a mark cannot stand in [^...]: rules see it as two characters")
        full = "|".join([*([f"[{negated}{said}]"] if said else []), *(one.full for one in wide)])
        begun = "|".join(one.begun for one in wide if one.begun)
        marks = marked and not negated
        if marks or wide:
            full = f"(?:{full}){_MARKS if marks else ''}"
        width = max([1.0, *(one.width for one in wide)]) + (MOST_MARKS if marks else 0)
        return Pattern(full, f"(?:{begun})" if begun else "", 1, width)

    def _group(self, _number: int | None, added: int, removed: int, inner: Any) -> Pattern:  # noqa: ANN401
        if added & ~re.IGNORECASE or removed:
            raise BadPattern("flags inside a pattern are not supported, but for (?i: )")
        one = self.sequence(inner)
        opening = "(?i:" if added else "(?:"
        return Pattern(f"{opening}{one.full})", f"{opening}{one.begun})", one.least, one.width)

    def _repeat(self, least: int, most: Any, inner: Any) -> Pattern:  # noqa: ANN401
        endless = most == _parser.MAXREPEAT
        if least > WIDEST or (not endless and most > WIDEST):
            raise BadPattern(f"a count in braces is above {WIDEST}")
        one = self.sequence(inner)
        count = f"{{{least},}}" if endless else f"{{{least},{most}}}"
        before = "*" if endless else f"{{0,{max(0, most - 1)}}}"
        width = math.inf if endless and one.width else one.width * (0 if endless else most)
        return Pattern(f"(?:{one.full}){count}", f"(?:(?:{one.full}){before}{one.begun})", least * one.least, width)


def _code(code: int) -> str:
    return f"\\x{{{code:x}}}"
