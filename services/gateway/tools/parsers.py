"""The parser of each format: where calls begin, what stands between them, where they end. Pure."""

import secrets
from enum import Enum, auto

from services.gateway.tools.call import FUNCTION_NAME, ArgumentsText, CallText, Known
from services.gateway.tools.formats import ARGS_MISTRAL, ToolFormat
from services.gateway.tools.parser import Parser, Teller


def open_parser(form: ToolFormat, names: frozenset[str], *, eager: bool, single: bool, whose: str = "") -> Parser:
    """Make a parser for one choice. `eager`: calls are told as they grow. `single`: one call ends the answer.

    `whose`: names the text like no other; what calls are called follows from it.
    """
    whose = whose or secrets.token_hex(16)
    teller = Teller(eager=eager, single=single, short_ids=form.name == "mistral", whose=whose)
    if form.name == "hermes":
        return Hermes(teller, _any_name, form.opener, form.closer)
    if form.name == "mistral":
        return Mistral(teller, _any_name, form.opener)
    # nothing marks these but their form, so only a name that the client gave makes an object a call
    return Lines(teller, names.__contains__)


def _any_name(_name: str) -> bool:
    return True


def held_back(text: str, marker: str) -> int:
    """Count the characters at the end of a text that may be the beginning of a marker."""
    for size in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:size]):
            return size
    return 0


class Marked(Parser):
    """Calls begin with a marker, anywhere in the text."""

    def __init__(self, teller: Teller, known: Known, opener: str) -> None:
        super().__init__(teller, known)
        self._opener = opener

    def look(self, text: str) -> str:
        """See Parser."""
        words, opener, rest = text.partition(self._opener)
        if opener:
            self.teller.words(words)
            self.enter(opener)
            return rest
        keep = held_back(text, self._opener)
        self.teller.words(text[: len(text) - keep])
        self._held = text[len(text) - keep :]
        return ""


class Hermes(Marked):
    """<tool_call>{"name": ..., "arguments": ...}</tool_call>, any number of them."""

    def __init__(self, teller: Teller, known: Known, opener: str, closer: str) -> None:
        super().__init__(teller, known, opener)
        self._closer = closer
        self._tail = ""

    def step(self, character: str) -> bool:
        """See Parser."""
        if self._call is not None:
            return self.in_call(character)
        if not self._after:
            self._tail = ""
            return self.skip(character) if character.isspace() else self.begin(CallText(self._known), character)
        tail = (self._tail + character).lstrip()
        if not self._closer.startswith(tail):
            return False
        self._tail = tail
        if tail == self._closer:
            self.leave()
            return True
        return self.skip(character)


class Lines(Parser):
    """{"name": ..., "parameters": ...} at the beginning of a line, alone, several, or in one array."""

    def __init__(self, teller: Teller, known: Known) -> None:
        super().__init__(teller, known)
        self._fresh = True  # only space since the last line end
        self._array = False

    def look(self, text: str) -> str:
        """See Parser."""
        for place, character in enumerate(text):
            if character in "{[" and self._fresh:
                self.teller.words(text[:place])
                self.enter("")
                self._fresh, self._array = False, character == "["
                return text[place:]
            self._fresh = character == "\n" or (self._fresh and character.isspace())
        self.teller.words(text)
        return ""

    def step(self, character: str) -> bool:
        """See Parser."""
        if self._call is not None:
            return self.in_call(character)
        if character == "{":
            return self.begin(CallText(self._known), character)
        if not self._after:
            opens = character == "[" and not "".join(self._raw)
            return self.skip(character) if opens or (character.isspace() and self._array) else False
        if self._array and character == "]":
            self.leave()
            return True
        separates = character.isspace() or character in ("," if self._array else ",;")
        return self.skip(character) if separates else False


class _Part(Enum):
    LEAD = auto()
    ARRAY = auto()
    NAME = auto()
    TAG = auto()
    ID = auto()
    CALL = auto()


class Mistral(Marked):
    """[TOOL_CALLS] with an array of calls, or [TOOL_CALLS]name[ARGS]{...} for each call."""

    def __init__(self, teller: Teller, known: Known, opener: str) -> None:
        super().__init__(teller, known, opener)
        self._part = _Part.LEAD
        self._name = self._tag = ""

    def enter(self, marker: str) -> None:
        """See Parser."""
        super().enter(marker)
        self._part = _Part.LEAD
        self._name = self._tag = ""

    def step(self, character: str) -> bool:
        """See Parser."""
        if self._call is not None:
            good = self.in_call(character)
            if self._after and self._part is not _Part.ARRAY:
                self.leave()
            return good
        match self._part:
            case _Part.ARRAY:
                return self._in_array(character)
            case _Part.LEAD:
                return self._in_lead(character)
            case _Part.NAME:
                return self._in_name(character)
            case _:
                return self._in_tag(character)

    def _in_lead(self, character: str) -> bool:
        if character.isspace():
            return self.skip(character)
        if character == "[":
            self._part = _Part.ARRAY
            return self.skip(character)
        if character == "{":
            self._part = _Part.CALL
            return self.begin(CallText(self._known), character)
        self._part = _Part.NAME
        return self._in_name(character)

    def _in_array(self, character: str) -> bool:
        if character == "{":
            return self.begin(CallText(self._known), character)
        if self._after and character == "]":
            self.leave()
            return True
        separates = character.isspace() or (self._after and character == ",")
        return self.skip(character) if separates else False

    def _in_name(self, character: str) -> bool:
        if character == "{":
            return self._begin_arguments(character)
        if character == "[":
            self._part, self._tag = _Part.TAG, character
            return self.skip(character)
        self._name += character
        return self.skip(character) if FUNCTION_NAME.fullmatch(self._name) else False

    def _in_tag(self, character: str) -> bool:
        """Take [ARGS], or [CALL_ID] with an id, which some models write and nobody needs."""
        if character == "{" and self._tag == ARGS_MISTRAL:
            return self._begin_arguments(character)
        if character == "[" and self._part is _Part.ID:
            self._part, self._tag = _Part.TAG, ""
        if self._part is _Part.ID:
            return self.skip(character) if character.isalnum() else False
        if self._tag == ARGS_MISTRAL:
            return self.skip(character) if character.isspace() else False
        self._tag += character
        if self._tag == "[CALL_ID]":
            self._part = _Part.ID
        fits = ARGS_MISTRAL.startswith(self._tag) or "[CALL_ID]".startswith(self._tag)
        return self.skip(character) if fits else False

    def _begin_arguments(self, character: str) -> bool:
        if not FUNCTION_NAME.fullmatch(self._name):
            return False
        self._part = _Part.CALL
        return self.begin(ArgumentsText(self._name), character)
