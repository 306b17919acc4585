"""One JSON object as it grows, character by character.

Owns the rules of JSON, so that what was let through so far is always the beginning of a valid object. Pure; keeps
nothing of the text.
"""

import re
from enum import Enum, auto
from typing import Final

DEEPEST: Final = 128
LONGEST_NUMBER: Final = 400
_SPACE: Final = frozenset(" \t\r\n")
_WORDS: Final = {"t": "rue", "f": "alse", "n": "ull"}
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_SO_FAR: Final = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE][+-]?[0-9]*)?)?")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]+')
_OF_NUMBERS: Final = frozenset("0123456789+-.eE")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_ESCAPES: Final = frozenset('"\\/bfnrt')


class Want(Enum):
    """What may come next."""

    VALUE = auto()
    ITEM_OR_END = auto()
    KEY_OR_END = auto()
    KEY = auto()
    COLON = auto()
    NEXT = auto()  # a comma or the end of what is open
    STRING = auto()
    ESCAPE = auto()
    HEX = auto()
    WORD = auto()
    NUMBER = auto()
    NOTHING = auto()


class JsonText:
    """Reads one object or array; `done` when it is closed."""

    __slots__ = ("_left", "_number", "_open", "_word", "in_key", "want")

    def __init__(self) -> None:
        self.want = Want.VALUE
        self.in_key = False  # the string that is open, or was the last one, is a key
        self._open: list[str] = []  # closing brackets that are due
        self._left = 0  # of a \uXXXX
        self._word = ""
        self._number = ""

    @property
    def done(self) -> bool:
        """Whether the value is complete."""
        return self.want is Want.NOTHING

    @property
    def depth(self) -> int:
        """How many objects and arrays are open."""
        return len(self._open)

    def feed(self, character: str) -> str | None:
        """Take the next character; returns it as JSON has it, or None when it cannot stand here.

        A line end inside a string, which models like to write, becomes its escape.
        """
        want = self.want
        if want is Want.STRING:
            return self._in_string(character)
        if want is Want.ESCAPE or want is Want.HEX:
            return self._in_escape(character)
        if want is Want.WORD:
            return self._in_word(character)
        fits = self._in_number(character) if want is Want.NUMBER else None
        if fits is None:
            fits = (want is not Want.NOTHING and character in _SPACE) or self._structure(character)
        return character if fits else None

    def run(self, text: str, place: int) -> int:
        """Take what is plainly inside a string from `place` on, all at once; returns where that ends."""
        if self.want is Want.STRING and (found := _PLAIN.match(text, place)):
            return found.end()
        return place

    def _in_string(self, character: str) -> str:
        if character == '"':
            if self.in_key:
                self.want = Want.COLON
            else:
                self._close_value()
        elif character == "\\":
            self.want = Want.ESCAPE
        elif character < " ":
            return f"\\u{ord(character):04x}"
        return character

    def _in_escape(self, character: str) -> str | None:
        if self.want is Want.ESCAPE:
            if character == "u":
                self.want, self._left = Want.HEX, 4
                return character
            self.want = Want.STRING
            return character if character in _ESCAPES else None
        self._left -= 1
        if self._left == 0:
            self.want = Want.STRING
        return character if character in _HEX else None

    def _in_number(self, character: str) -> bool | None:
        """Take a character of a number; None when the number is complete before it."""
        if character in _OF_NUMBERS:
            self._number += character
            return len(self._number) <= LONGEST_NUMBER and _NUMBER_SO_FAR.fullmatch(self._number) is not None
        if not _NUMBER.fullmatch(self._number):
            return False
        self._close_value()
        return None

    def _in_word(self, character: str) -> str | None:
        if character != self._word[0]:
            return None
        self._word = self._word[1:]
        if not self._word:
            self._close_value()
        return character

    def _structure(self, character: str) -> bool:
        """Take a character outside strings, words and numbers; false when it cannot stand here."""
        match self.want:
            case Want.COLON:
                self.want = Want.VALUE
                return character == ":"
            case Want.NEXT if character == ",":
                self.want = Want.KEY if self._open[-1] == "}" else Want.VALUE
                return True
            case Want.NEXT | Want.ITEM_OR_END | Want.KEY_OR_END if character == self._open[-1]:
                self._open.pop()
                self._close_value()
                return True
            case Want.KEY | Want.KEY_OR_END:
                self.want, self.in_key = Want.STRING, True
                return character == '"'
            case Want.VALUE | Want.ITEM_OR_END:
                return self._begin(character)
            case _:
                return False

    def _begin(self, character: str) -> bool:
        """Begin a value."""
        if character in "{[":
            self._open.append("}" if character == "{" else "]")
            self.want = Want.KEY_OR_END if character == "{" else Want.ITEM_OR_END
            return len(self._open) <= DEEPEST
        if character == '"':
            self.want, self.in_key = Want.STRING, False
            return True
        if character in _WORDS:
            self.want, self._word = Want.WORD, _WORDS[character]
            return True
        self.want, self._number = Want.NUMBER, character
        return character in "-0123456789"

    def _close_value(self) -> None:
        self.want = Want.NEXT if self._open else Want.NOTHING
