"""One attempt at work on a worker: a task that ends well, by its own error, or because it was told to stop.

Owns why an attempt stops and the bound of its life. Frees nothing: whoever runs it frees in one place, after `work`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from shared.errors import BatonError, DeadlineExceeded
from shared.messages import Request, Value
from shared.worker.progress import Progress

log = logging.getLogger(__name__)


def key_of(request_id: str, attempt: int) -> str:
    """The engine's and the receiver's name of an attempt."""
    return f"{request_id}#{attempt}"


def left_s(deadline_ms: int) -> float:
    """Seconds until a deadline on the wire; negative when it has passed."""
    return deadline_ms / 1000 - time.time()


class Running:
    """An attempt that was accepted. `answer` is what its offer was answered, given again to a repeated offer."""

    def __init__(self, request: Request, answer: Value) -> None:
        self.request = request
        self.answer = answer
        self.progress = Progress(request)
        self.passed_on = False  # another worker has the attempt now, and knows more of it
        self.key = key_of(request.request_id, request.attempt)
        self._task: asyncio.Task[object] | None = None
        self._stopped_by: BatonError | None = None
        self._over = False

    @property
    def request_id(self) -> str:
        """Whose attempt it is."""
        return self.request.request_id

    @property
    def attempt(self) -> int:
        """Its number."""
        return self.request.attempt

    def stop(self, error: BatonError) -> None:
        """End the work with this error; the first one counts. Does nothing once the work is over."""
        if self._over or self._stopped_by is not None:
            return
        self._stopped_by = error
        if self._task is not None:  # a task that is cancelled before its first step would never free anything
            self._task.cancel()

    def check(self) -> None:
        """Raise what the work was stopped with; between steps, for a library may have swallowed the cancellation."""
        if self._stopped_by is not None:
            raise self._stopped_by

    async def work(self, steps: Callable[[], Awaitable[None]]) -> BatonError | None:
        """Do the steps within the request's life. Answers what they failed with, None when all went well."""
        self._task = asyncio.current_task()
        try:
            if self._stopped_by is None:
                async with asyncio.timeout(left_s(self.request.expires_ms)):
                    await steps()
        except TimeoutError:
            expired = DeadlineExceeded("the request's time was up")
            expired.retryable = False
            return expired
        except asyncio.CancelledError:
            if self._stopped_by is None or self._task is None:
                raise
            self._task.uncancel()
        except BatonError as error:
            return error
        except Exception:  # a bug of ours ends one attempt, not the worker
            log.exception("an attempt failed", extra={"request": self.request_id, "attempt": self.attempt})
            failed = BatonError("internal error")
            failed.retryable = True  # want of memory, or a bug that need not come again: another attempt tells
            return failed
        finally:
            self._over = True
        return self._stopped_by
