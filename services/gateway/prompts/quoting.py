"""What a client says stays text: the name of a special token in it does not become that token.

A tokenizer takes such a name for the token wherever it stands, and only the chat template may write those. So the texts
of a client are cut behind the first character of each name before they are rendered, and tokenised in parts. Pure but
for the mark that is drawn.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import ahocorasick
import msgspec

from services.gateway.api.messages import ChatMessage

LEAST: Final = 2
"""Characters of a name that can be cut."""


def draw_mark() -> str:
    """Draw a text that nobody else writes, and that templates and JSON leave as it is: no letters, no space."""
    return f"\x7f{secrets.randbits(64)}\x7f"


class Quoting:
    """Knows the names of one tokenizer's special tokens."""

    def __init__(self, names: Sequence[str]) -> None:
        self._mark = draw_mark()
        self._names: Any = ahocorasick.Automaton()  # the library has no types
        for name in names:
            if len(name) >= LEAST:
                self._names.add_word(name, len(name))
        self._any = len(self._names) > 0
        if self._any:
            self._names.make_automaton()

    def text(self, text: str) -> str:
        """Cut a text where a name would be taken for its token."""
        if not self._any:
            return text
        cuts = sorted({last - length + LEAST for last, length in self._names.iter(text)})
        if not cuts:
            return text
        return self._mark.join(text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True))

    def value(self, value: Any) -> Any:  # noqa: ANN401  whatever JSON can say
        """Cut every text of a value, keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {self.text(key): self.value(one) for key, one in value.items()}
        return value

    def message(self, message: ChatMessage) -> ChatMessage:
        """Cut what a message says. Its calls' ids stay: they are looked up, and said nowhere."""
        calls = message.tool_calls and [
            msgspec.structs.replace(
                call, function=msgspec.structs.replace(call.function, arguments=self.text(call.function.arguments))
            )
            for call in message.tool_calls
        ]
        return msgspec.structs.replace(message, content=self.text(message.text), tool_calls=calls)

    def parts(self, rendered: str) -> list[str]:
        """The parts of a rendered conversation, each to be tokenised by itself. Mostly it is one."""
        return rendered.split(self._mark)
