"""A process of vLLM dies with its owner, the worker that started it, however the owner dies.

Not by PR_SET_PDEATHSIG: that signal comes when the thread that forked ends, not the process.
"""

import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.5
"""Between two looks, where the kernel has no pidfd."""

_watched: set[int] = set()


def die_with(owner: int) -> None:
    """Kill this process as soon as `owner` has ended, or now if it has. Once per process and owner, a thread."""
    if owner in _watched:
        return
    _watched.add(owner)
    threading.Thread(target=_watch, args=(owner,), name=f"die with {owner}", daemon=True).start()


def _watch(owner: int) -> None:
    wait_for_end(owner)
    os.kill(os.getpid(), signal.SIGKILL)  # the engine's own way down would wait for peers that are gone as well


def wait_for_end(pid: int) -> None:
    """Return once process `pid` has ended; a zombie has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # before Linux 5.3, or forbidden
        _poll(pid)
        return
    try:
        poll = select.poll()  # select.select cannot take descriptors above 1023
        poll.register(descriptor, select.POLLIN)
        while not poll.poll():
            pass
    finally:
        os.close(descriptor)


def _poll(pid: int) -> None:
    born = _born(pid)
    while born is not None and _born(pid) == born:  # a later process may get the same id
        time.sleep(LOOK_S)


def _born(pid: int) -> str | None:
    """When a living process began, in the kernel's ticks; None if it has ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if after_name[0] in "ZX" else after_name[19]
