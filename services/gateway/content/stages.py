"""What a choice's text goes through on its way out: stages, each a sink before the next one.

Owns the decision to stop a choice, at the first match. A stage that only flags delays nothing. How a match is counted
and logged, and how a choice ends, is said by whoever made the stage.
"""

from collections.abc import Callable

from services.gateway.content.held import Held
from services.gateway.content.scanner import Scanner, Source
from services.gateway.relay.record import Sink
from shared.messages import Finish, Logprobs

Found = Callable[[str], None]
"""Called once, with the category."""


class RuleStage:
    """Holds back what may become a match; the first match ends the choice."""

    __slots__ = ("_found", "_held", "_over", "_scanner")

    def __init__(self, source: Source, sink: Sink, found: Found) -> None:
        self._scanner = Scanner(source)
        self._held = Held(sink)
        self._found = found
        self._over = False

    def text(self, index: int, text: str) -> None:
        """Take text and pass on what is clean."""
        if self._over:
            return
        self._held.text(index, text, self._scanner.feed(text))
        if self._scanner.match is not None:
            self._stop(self._scanner.match.category)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Take a token and pass on those that are clean."""
        if self._over:
            return
        self._held.token(index, text, logprobs, self._scanner.feed(text) if text else 0)
        if self._scanner.match is not None:
            self._stop(self._scanner.match.category)

    def finish(self, reason: Finish) -> None:
        """Pass on what was held only because more could come."""
        if self._over:
            return
        self._held.release(self._scanner.finish())
        if self._scanner.match is not None:
            self._stop(self._scanner.match.category)
            return
        self._over = True
        self._held.end(reason)

    def _stop(self, category: str) -> None:
        self._over = True
        self._held.end(Finish.CONTENT_FILTER)
        self._found(category)


class RuleWatch:
    """Passes everything on at once, and tells the first match."""

    __slots__ = ("_found", "_scanner", "_sink")

    def __init__(self, source: Source, sink: Sink, found: Found) -> None:
        self._scanner: Scanner | None = Scanner(source)
        self._sink = sink
        self._found = found

    def text(self, index: int, text: str) -> None:
        """Pass on."""
        self._sink.text(index, text)
        self._watch(text)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Pass on."""
        self._sink.token(index, text, logprobs)
        self._watch(text)

    def finish(self, reason: Finish) -> None:
        """Pass on."""
        if self._scanner is not None:
            self._scanner.finish()
            self._tell()
        self._sink.finish(reason)

    def _watch(self, text: str) -> None:
        if self._scanner is not None and text:
            self._scanner.feed(text)
            self._tell()

    def _tell(self) -> None:
        if self._scanner is not None and self._scanner.match is not None:
            category = self._scanner.match.category
            self._scanner = None
            self._found(category)
