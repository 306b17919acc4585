"""The audit log: which key did what, when, and how it ended. Never a secret, never a prompt.

Owns the logger `baton.audit`, the file it may go to, and the bound on lines that strangers can cause.
"""

import logging
import os
import time
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from typing import Final

from shared.errors import ConfigError
from shared.telemetry import JsonLines

REFUSED_PER_SECOND: Final = 10

log = logging.getLogger("baton.audit")


class Lines:
    """Where audit lines go; `close` ends what `open_file` began."""

    def __init__(self) -> None:
        self._handler: logging.Handler | None = None

    def open_file(self, path: str, **identity: str) -> None:
        """Send the lines to a file, one JSON object each, and nowhere else. Raises ConfigError."""
        try:
            handler = _OwnersFile(path, encoding="utf-8")
        except OSError as error:
            raise ConfigError([f"gateway.audit_file: {path} cannot be written ({error.strerror})"]) from error
        handler.setFormatter(JsonLines(identity))
        self._handler = handler
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.INFO)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._handler is not None:
            log.removeHandler(self._handler)
            log.propagate = True
            self._handler.close()
            self._handler = None


class _OwnersFile(WatchedFileHandler):
    """A file that only its owner may read, whoever rotates it."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=_for_its_owner)


class Strangers:
    """Bounds what credentials that were refused may write: so many lines a second, the rest as a number."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._silent = 0

    def note(self, reason: str, **fields: object) -> None:
        """Write that somebody was refused, or count it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= REFUSED_PER_SECOND:
            self._silent += 1
            return
        self._lines += 1
        more, self._silent = ({"unlogged": self._silent} if self._silent else {}), 0
        note("credential.refused", reason=reason, **fields, **more)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def note(event: str, **fields: object) -> None:
    """Write one line."""
    log.info(event, extra={"event": event, **fields})
