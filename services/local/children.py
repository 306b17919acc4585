"""Child processes that cannot outlive us: started, watched by pidfd, stopped within a bound. Decides nothing.

Each child leads its own session, so a Ctrl-C at the terminal reaches only us and we choose the order of stopping; the
kernel kills it when we die, however we die (PR_SET_PDEATHSIG). What it leaves of its group is killed when it ends.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: nothing may be imported between fork and exec


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. `log` is appended to; None leaves the terminal's stderr to the child."""

    name: str
    argv: list[str]
    env: Mapping[str, str] = field(repr=False)  # holds passwords
    log: Path | None
    cwd: Path
    umask: int = -1  # -1: ours


class Child:
    """One running process. `on_exit` is called once, on the event loop, after it has been reaped."""

    def __init__(self, command: Command, on_exit: Callable[["Child"], None] | None = None) -> None:
        self.command = command
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._process = _spawn(command)
        self.started_at = self._loop.time()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def name(self) -> str:
        """Name of the command."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Process id; stays the same when the child becomes another program."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status as subprocess gives it (negative: killed by that signal), None while it runs."""
        return self._process.returncode

    @property
    def lived_s(self) -> float:
        """Seconds since it started."""
        return self._loop.time() - self.started_at

    async def ended(self) -> int:
        """Wait for the end; returns the exit status."""
        return await asyncio.shield(self._ended)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, unless it has ended."""
        if self.status is None:
            self._process.send_signal(number)

    def how(self) -> str:
        """Say how it ended."""
        if self.status is None:
            return "is running"
        if self.status < 0:
            return f"was killed by {signal.Signals(-self.status).name}"
        return f"ended with status {self.status}"

    def last_words(self, lines: int = 12) -> str:
        """Return the end of its log."""
        if self.command.log is None:
            return ""
        with self.command.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # before reaping: until then nobody else can have this group id
        status = self._process.wait()
        self._ended.set_result(status)
        if self._on_exit is not None:
            self._on_exit(self)


async def stop(children: Iterable[Child], grace_s: float) -> list[str]:
    """Ask the children to end, kill those that have not after the grace. Returns the names of those killed."""
    alive = [child for child in children if child.status is None]
    for child in alive:
        child.kill(signal.SIGTERM)
    late = await _wait(alive, grace_s)
    for child in late:
        child.kill()
    stuck = await _wait(late, 5.0)  # SIGKILL takes as long as the kernel needs to free the memory
    return [child.name for child in late] + [f"{child.name} (still there)" for child in stuck]


async def _wait(children: list[Child], seconds: float) -> list[Child]:
    waits = [asyncio.ensure_future(child.ended()) for child in children]
    if waits:
        _, pending = await asyncio.wait(waits, timeout=seconds)
        for wait in pending:
            wait.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return [child for child in children if child.status is None]


def _spawn(command: Command) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    log = (
        subprocess.DEVNULL
        if command.log is None
        else os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    )
    try:
        return subprocess.Popen(  # noqa: S603  argv is made by us, no shell
            command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=None if command.log is None else log,
            start_new_session=True,
            umask=command.umask,
            preexec_fn=die_with_parent,  # noqa: PLW1509  `baton up` has one thread
        )
    finally:
        if log != subprocess.DEVNULL:
            os.close(log)
