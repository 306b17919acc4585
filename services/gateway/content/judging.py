"""A stage that lets a service judge the text, window by window.

Owns the windows under way of one choice, at most a few, judged beside each other and passed on in order. Text that
comes faster than it is judged gathers for the next window. Each window is shown with the end of the text before it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.gateway.content.external import External
from services.gateway.content.held import Held
from services.gateway.content.stages import Found
from services.gateway.relay.record import Sink
from shared.errors import BatonError, Unavailable
from shared.messages import Finish, Logprobs
from shared.tasks import Tasks

WINDOWS: Final = 4
"""Of one choice, judged at once."""


@dataclass(slots=True)
class _Window:
    size: int
    task: "asyncio.Task[str | BatonError | None]"


class JudgeStage:
    """Holds text until it is judged; the first flag ends the choice. With `hold` off it only watches."""

    def __init__(
        self,
        service: External,
        sink: Sink,
        found: Found,
        failed: Callable[[BatonError], None],
        tasks: Tasks,
        *,
        hold: bool,
    ) -> None:
        self._service, self._sink, self._found, self._failed = service, sink, found, failed
        self._tasks = tasks
        self._held = Held(sink) if hold else None
        self._new: list[str] = []
        self._size = 0  # of the new text
        self._past = ""
        self._windows: deque[_Window] = deque()
        self._reason: Finish | None = None
        self._over = False

    def text(self, index: int, text: str) -> None:
        """Take text."""
        if self._held is None:
            self._sink.text(index, text)
        elif not self._over:
            self._held.text(index, text, 0)
        self._take(text)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        """Take a token."""
        if self._held is None:
            self._sink.token(index, text, logprobs)
        elif not self._over:
            self._held.token(index, text, logprobs, 0)
        self._take(text)

    def finish(self, reason: Finish) -> None:
        """Let the rest be judged; the choice ends after it."""
        if self._held is None:
            self._sink.finish(reason)
        self._reason = reason
        self._advance()

    def close(self) -> None:
        """Judge no more: nobody waits for the text."""
        if self._held is not None:
            self._stop()

    def _take(self, text: str) -> None:
        if text and not self._over:
            self._new.append(text)
            self._size += len(text)
            self._advance()

    def _advance(self) -> None:
        """Pass on what was judged, in order; have judged what is due."""
        while self._windows and self._windows[0].task.done() and not self._over:
            self._settle(self._windows.popleft())
        due = 1 if self._reason is not None else self._service.settings.stream_chars
        if not self._over and self._size >= due and len(self._windows) < WINDOWS:
            self._open()
        if self._reason is not None and not (self._over or self._windows):
            self._over = True
            if self._held is not None:
                self._held.end(self._reason)

    def _open(self) -> None:
        new = "".join(self._new)
        overlap = self._service.settings.overlap_chars
        try:
            task = self._tasks.spawn(self._judged(self._past + new), name="moderation")
        except Unavailable as error:
            self._fail(error)
            return
        self._windows.append(_Window(len(new), task))
        self._past = (self._past + new)[-overlap:] if overlap else ""
        self._new.clear()
        self._size = 0
        task.add_done_callback(lambda _: self._advance())

    async def _judged(self, text: str) -> str | BatonError | None:
        try:
            return await self._service.judge([text])
        except BatonError as error:  # an answer too, which the stage must hear in its turn
            return error

    def _settle(self, window: _Window) -> None:
        task = window.task
        broken = task.cancelled() or task.exception() is not None  # its owner has logged that
        said = BatonError("moderation was broken off") if broken else task.result()
        if isinstance(said, BatonError):
            self._fail(said)
        elif said is not None:
            self._stop()
            if self._held is not None:
                self._held.end(Finish.CONTENT_FILTER)
            self._found(said)
        elif self._held is not None:
            self._held.release(window.size)

    def _fail(self, error: BatonError) -> None:
        self._stop()
        if self._held is not None:
            self._failed(error)

    def _stop(self) -> None:
        self._over = True
        self._new.clear()
        for window in self._windows:
            window.task.cancel()
        self._windows.clear()
