"""Named points at which a test makes a process die, stand still, block or fail: armed by BATON_FAILPOINTS alone.

Owns the names, the specification and the deeds. Passing a point costs a look at an empty dictionary unless the process
was armed at its start; nothing that comes over a network can arm one.

`decode.step=kill@12;prefill.accepted=sleep:2.0` kills the process at the twelfth step and blocks it for two seconds
at the first prompt. Deeds: `kill` and `stop` (signals to the process itself), `sleep:SECONDS` (blocks the thread, as a
stuck loop does), `raise`, `memory` (MemoryError), `exit:CODE`. `@N`: at the N-th passing, once; without it the first.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Final

from shared.errors import ConfigError

VARIABLE: Final = "BATON_FAILPOINTS"
NAMES: Final = frozenset(
    {
        "gateway.offered",  # a prefill has answered the offer; nobody has heard of it
        "prefill.accepted",  # the offer is accepted; nothing is computed
        "prefill.computed",  # the KV and the first token are there; nothing is sent
        "prefill.first_token",  # the first token is sent
        "prefill.kv_ready",  # the KV is exported; no decode was asked
        "prefill.granted",  # a decode has made room; nothing was pushed
        "prefill.pushed",  # the decode has confirmed the KV; the gateway does not know
        "kv.pushing",  # the receiver waits for the payload; nothing of it is sent
        "kv.writing",  # by Mooncake: the receiver has said where; nothing is written
        "kv.chunk",  # over TCP: before each chunk of the payload
        "decode.granted",  # room is reserved; nothing has come
        "decode.received",  # the KV is here and checked, and in no batch
        "decode.inserted",  # it is in the batch, without a token of it being sent
        "decode.step",  # a step is done; no frame of it is sent
        "decode.ending",  # a last token is drawn; neither it nor the ending is sent
        "monitor.action",  # decided, and not begun
    }
)

_armed: dict[str, "_Armed"] = {}
_spared: ContextVar[bool] = ContextVar("spared", default=False)


@dataclass(slots=True)
class _Armed:
    deed: Callable[[], None]
    left: int  # passings, the one that counts included


def failpoint(name: str) -> None:
    """Pass a point, or do there what it is armed with."""
    if _armed:
        _pass(name)


@contextmanager
def spared() -> Iterator[None]:
    """Pass points unhurt and uncounted, in this context: what goes by is no request, and tests count requests."""
    token = _spared.set(True)
    try:
        yield
    finally:
        _spared.reset(token)


def arm(environ: Mapping[str, str]) -> None:
    """Arm what the variable says, and nothing else. Raises ConfigError with every mistake."""
    _armed.clear()
    faults: list[str] = []
    for part in filter(None, environ.get(VARIABLE, "").split(";")):
        name, _, what = part.strip().partition("=")
        word, _, number = what.partition("@")
        deed = _deed(name, *word.partition(":")[::2])
        if name not in NAMES:
            faults.append(f"{VARIABLE}: there is no failpoint {name!r}; there are {', '.join(sorted(NAMES))}")
        elif deed is None or not (number or "1").isdecimal() or int(number or 1) < 1:
            faults.append(f"{VARIABLE}: {part!r} is none of kill, stop, sleep:SECONDS, raise, memory, exit:CODE, or @N")
        else:
            _armed[name] = _Armed(deed, int(number or 1))
    if faults:
        raise ConfigError(faults)


def _pass(name: str) -> None:
    armed = _armed.get(name)
    if armed is None or _spared.get():
        return
    armed.left -= 1
    if armed.left <= 0:
        del _armed[name]
        armed.deed()


def _deed(name: str, word: str, value: str) -> Callable[[], None] | None:
    match word:
        case "kill" | "stop" if not value:
            number = signal.SIGKILL if word == "kill" else signal.SIGSTOP
            return partial(os.kill, os.getpid(), number)
        case "sleep":
            seconds = _number(value)
            return None if seconds is None else partial(time.sleep, seconds)
        case "raise" | "memory" if not value:
            return partial(_raise, RuntimeError if word == "raise" else MemoryError, name)
        case "exit" if value.isdecimal():
            return partial(os._exit, int(value))
        case _:
            return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _raise(kind: type[Exception], name: str) -> None:
    raise kind(f"failpoint {name}")
