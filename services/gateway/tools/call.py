"""One call as it grows: `{"name": ..., "arguments": {...}}`, or the arguments alone after a name.

Owns what is known of the call so far. Knows nothing of what stands around calls. Pure.
"""

import json
import re
from collections.abc import Callable
from typing import Final

from services.gateway.tools.json_text import JsonText, Want

FUNCTION_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
ARGUMENTS: Final = frozenset({"arguments", "parameters"})
_KEYS: Final = ARGUMENTS | {"name", "type", "id"}
_IN_STRING: Final = frozenset({Want.STRING, Want.ESCAPE, Want.HEX})

Known = Callable[[str], bool]
"""Whether a function may be called by this name."""


class CallText:
    """Reads a call written as one object. What `arguments` hands out concatenates to one JSON object."""

    __slots__ = ("_argued", "_key", "_known", "_nested", "_out", "_ready", "_text", "_value", "name")

    def __init__(self, known: Known) -> None:
        self.name: str | None = None
        self._known = known
        self._text = JsonText()
        self._key: str | None = None  # whose value is being read
        self._value: list[str] = []  # the key or the value that is being read
        self._nested = False  # the value is the arguments' object, handed out as it comes
        self._argued = False
        self._ready = False
        self._out: list[str] = []

    @property
    def done(self) -> bool:
        """Whether the call is complete."""
        return self._text.done

    @property
    def begun(self) -> bool:
        """Whether this is a call of a known function, as far as can be seen: name and arguments have come."""
        return self._ready and self.name is not None

    def arguments(self) -> str:
        """Hand over what came of the arguments since the last time."""
        out = "".join(self._out)
        self._out.clear()
        return out

    def run(self, text: str, place: int) -> int:
        """Take at once what is plainly part of the arguments from `place` on; returns where that ends."""
        if not self._nested:
            return place
        end = self._text.run(text, place)
        if end > place:
            self._out.append(text[place:end])
        return end

    def feed(self, character: str) -> bool:
        """Take the next character; false when the text is no call after all."""
        text = self._text
        if text.depth == 0 and character != "{":
            return False
        in_key = text.in_key and text.depth == 1 and text.want in _IN_STRING
        kept = text.feed(character)
        if kept is None:
            return False
        if self._key is not None:
            return self._of_value(kept)
        if text.depth == 1:
            if in_key:
                self._value.append(kept)
            elif text.want is Want.VALUE:  # a colon has come
                self._key = json.loads('"' + "".join(self._value))
                self._value.clear()
                return self._key in _KEYS  # anything else is an object of the model's own, and no call
        elif text.done:
            return self._complete()
        return True

    def _of_value(self, kept: str) -> bool:
        """Take a character of the value of `_key`, or of what follows it."""
        text = self._text
        closed = text.want is Want.NEXT and text.depth == 1
        over = text.done or (text.depth == 1 and text.want is Want.KEY)  # a number ends with what follows
        if not self._value and not self._nested and kept.isspace():
            return True
        if self._key in ARGUMENTS and not self._of_arguments(kept):
            return False
        if not self._nested:
            self._value.append(kept)
        if not (closed or over):
            return True
        good = self._end_value()
        return good and (self._complete() if text.done else True)

    def _of_arguments(self, kept: str) -> bool:
        """Hand out an object as it comes; keep a string or null until it is whole."""
        if not self._value and not self._nested:
            if self._argued or kept not in '{"n':
                return False
            self._argued = True
            self._nested = self._ready = kept == "{"
        if self._nested:
            self._out.append(kept)
        return True

    def _end_value(self) -> bool:
        key, self._key = self._key, None
        raw = "".join(self._value)
        self._value.clear()
        if self._nested:
            self._nested = False
            return True
        if key == "name":
            return self._end_name(raw)
        return self._end_spelled(raw) if key in ARGUMENTS else True

    def _end_name(self, raw: str) -> bool:
        name = json.loads(raw) if raw.startswith('"') else None
        if self.name is not None or not isinstance(name, str):
            return False
        if not FUNCTION_NAME.fullmatch(name) or not self._known(name):
            return False
        self.name = name
        return True

    def _end_spelled(self, raw: str) -> bool:
        """Take arguments that came as null, or as a string with JSON inside."""
        inner = json.loads(raw)
        made = "{}" if inner is None or not inner.strip() else inner.strip()
        reader = ArgumentsText("")
        if not all(reader.feed(character) for character in made) or not reader.done:
            return False
        self._out.append(reader.arguments())
        self._ready = True
        return True

    def _complete(self) -> bool:
        if not self._argued:
            self._out.append("{}")
            self._ready = True
        return self.name is not None


class ArgumentsText:
    """Reads the arguments of a call whose name is known already."""

    __slots__ = ("_out", "_text", "begun", "name")

    def __init__(self, name: str) -> None:
        self.name: str | None = name
        self.begun = False
        self._text = JsonText()
        self._out: list[str] = []

    @property
    def done(self) -> bool:
        """See CallText."""
        return self._text.done

    def arguments(self) -> str:
        """See CallText."""
        out = "".join(self._out)
        self._out.clear()
        return out

    def run(self, text: str, place: int) -> int:
        """See CallText."""
        end = self._text.run(text, place)
        if end > place:
            self._out.append(text[place:end])
        return end

    def feed(self, character: str) -> bool:
        """See CallText."""
        if not self.begun and character != "{":
            return False
        kept = self._text.feed(character)
        if kept is None or "\ud800" <= character <= "\udfff":  # half a character cannot be sent
            return False
        self.begun = True
        self._out.append(kept)
        return True
