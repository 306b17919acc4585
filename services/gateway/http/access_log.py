"""The access log: one entry a request, at its end. Never a word of a prompt or an answer, never a key.

Owns where entries go and how what a client sent is made harmless in them.
"""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from services.gateway.access.caller import Caller
from services.gateway.relay.calls import Call
from shared.errors import BatonError, Code, ConfigError

LONGEST: Final = 128
"""Characters of anything that a client sent."""
PENDING: Final = 4096
"""Entries kept for a file that cannot be written to; more are lost, and the log says how many."""
PLACES: Final = ("on", "off")
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})

log = logging.getLogger("baton.access")
own_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """What becomes known of one request while it is served."""

    id: str
    more: dict[str, str]  # headers for this client
    client: str = ""  # its address
    began: float = field(default_factory=time.monotonic)
    route: str = "other"
    caller: Caller | None = None
    model: str = ""  # as the client called it
    stream: bool = False
    call: Call | None = None
    error: Code | None = None


ENTRY: Final = web.RequestKey("entry", Entry)


class AccessLog:
    """Where entries go: among the other logs, to a file, nowhere."""

    def __init__(self) -> None:
        self.lost = 0
        self._to = "off"
        self._file: int | None = None
        self._pending: list[bytes] = []
        self._failing = False

    def use(self, to: str) -> None:
        """Write there from now on. A file is opened anew each time, so that it can be moved away."""
        file = None
        if to not in PLACES:
            try:
                file = _opened(to)
            except OSError as error:
                own_log.error("the access log stays where it is", extra={"file": to, "error": error.strerror})
                return
        self.close()
        self._to, self._file = to, file

    def write(self, request: web.BaseRequest, entry: Entry, status: int) -> None:
        """Take the entry of a request that has ended; probes that went well are none."""
        if self._to == "off" or (entry.route in PROBES and status < 500):  # noqa: PLR2004
            return
        fields = dict(_fields(request, entry, status))
        if self._to == "on":
            log.info("request", extra=fields)
        elif len(self._pending) < PENDING:
            self._pending.append(msgspec.json.encode({"time": _now(), **fields}) + b"\n")
        else:
            self.lost += 1

    def flush(self) -> None:
        """Write what is pending to the file: twice a second, and at the end."""
        if self._file is None or not self._pending:
            return
        data = b"".join(self._pending)
        try:
            written = os.write(self._file, data)
        except OSError as error:
            if not self._failing:
                own_log.error("the access log cannot be written to", extra={"file": self._to, "error": error.strerror})
            self._failing = True
            return
        self._failing = False
        self._tell_lost()
        self._pending = [data[written:]] if written < len(data) else []

    def close(self) -> None:
        """Write what is pending, and close the file."""
        self.flush()
        self.lost += len(self._pending)
        self._pending.clear()
        self._tell_lost()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _tell_lost(self) -> None:
        if self.lost:
            own_log.error("entries of the access log are lost", extra={"file": self._to, "entries": self.lost})
            self.lost = 0


def check_place(to: str) -> None:
    """See whether `gateway.access_log` names a place that can be written to. Raises ConfigError."""
    if to in PLACES:
        return
    try:
        os.close(_opened(to))
    except OSError as error:
        why = f"gateway.access_log: {to} cannot be written ({error.strerror}); give on, off or a file's path"
        raise ConfigError([why]) from error


def _opened(to: str) -> int:
    """Open it so that it never waits: it may be a pipe, whose reader is slow or missing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(Path(to).expanduser(), flags, 0o640)


def _fields(request: web.BaseRequest, entry: Entry, status: int) -> Iterator[tuple[str, Any]]:
    yield "method", harmless(request.method)
    yield "route", entry.route
    yield "status", status
    yield "request", entry.id
    if entry.caller is not None:
        yield "tenant", entry.caller.tenant
        if entry.caller.key_id:
            yield "key", entry.caller.key_id
    if entry.model:
        yield "model", harmless(entry.model)
        yield "stream", entry.stream
    if entry.call is not None:
        yield from _of_call(entry.call)
    yield "duration_ms", round((time.monotonic() - entry.began) * 1000, 1)
    error = _error(entry)
    if error is not None:
        yield "error", str(error)
    yield "client", entry.client
    yield "agent", harmless(request.headers.get("user-agent", ""))


def _of_call(call: Call) -> Iterator[tuple[str, Any]]:
    yield "scenario", call.scenario.name
    first_s = call.journal.first_token_s
    if first_s is not None:
        yield "ttft_ms", round(first_s * 1000, 1)
    yield (
        "tokens_in",
        call.usage.prompt_tokens
        or sum(record.prompt_tokens for record in call.records if record.request_id in call.counted),
    )
    yield "tokens_out", call.usage.completion_tokens or sum(len(record.ids) for record in call.records)


def _error(entry: Entry) -> Code | None:
    call = entry.call
    if entry.error is not None or call is None or not call.ended.done():
        return entry.error
    if call.ended.cancelled():  # with its handler, whose client has left
        return Code.CANCELLED
    error = call.ended.exception()
    return error.code if isinstance(error, BatonError) else None


def harmless(text: str) -> str:
    """Cut short what a client sent, and take out what could forge a line or steer a terminal."""
    short = text[:LONGEST]
    return short if short.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in short)


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
