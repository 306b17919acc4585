"""The followers as the leader sees them: their processes, their lines, and whether they still answer.

Owns the processes and one thread, which reads what they say and knows when one has ended. What fails, fails once, for
all: the followers are killed, so that nothing waits for them in vain, and everyone is told the same reason.
"""

import logging
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

import shared
from shared.engine.torch_engine.ranks.line import Line, LineEnded
from shared.engine.torch_engine.ranks.notes import Close, Done, Failed, ToFollower, for_leader, pack
from shared.errors import EngineFailed

LOOK_S: Final = 0.25
"""Between two looks at how long the present call has taken."""
CLOSE_S: Final = 5.0
"""For followers to end by themselves."""
VERDICT_S: Final = 3.0
"""For the reason to be known, once its consequences are."""
MODULE: Final = "shared.engine.torch_engine.ranks"

log = logging.getLogger(__name__)


class Crew:
    """Followers 1 to `number`. `failed` is told, in the crew's thread, why the engine is dead.

    A follower inherits the descriptors `inherits`. `patience_s`: how long one call may last, see `call`.
    """

    def __init__(
        self, number: int, failed: Callable[[EngineFailed], object], patience_s: float, inherits: Sequence[int] = ()
    ) -> None:
        self.verdict: EngineFailed | None = None
        self._failed = failed
        self._patience_s = patience_s
        self._judging = threading.Lock()
        self._judged = threading.Event()
        self._closing = threading.Event()
        self._inbox: queue.SimpleQueue[Done | None] = queue.SimpleQueue()  # None: look at the verdict
        self._since: float | None = None  # when the present call began
        self._over: Callable[[], bool] = bool  # whether what it left to the device is done
        self._lines: list[Line] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, number + 1):
                self._launch(rank, inherits)
        except OSError as error:
            self._end()
            raise EngineFailed(f"a rank's process cannot be started: {error}", fatal=True) from error
        self._thread = threading.Thread(target=self._watch, name="torch-ranks", daemon=True)
        self._thread.start()

    @property
    def pids(self) -> list[int]:
        """Of the followers."""
        return [process.pid for process in self._processes]

    def tell(self, notes: Sequence[ToFollower] | ToFollower) -> None:
        """Send one note to all, or each its own. Raises EngineFailed."""
        each = notes if isinstance(notes, Sequence) else [notes] * len(self._lines)
        packed = [pack(note) for note in each] if each is notes else [pack(each[0])] * len(each)
        self._check()
        for line, data in zip(self._lines, packed, strict=True):
            line.send(data)

    def done(self, seconds: float) -> None:
        """Wait until all have said Done. Raises EngineFailed."""
        until = time.monotonic() + seconds
        for _ in self._lines:
            try:
                self._inbox.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise EngineFailed(f"not all ranks have answered within {seconds:g} s", fatal=True) from None
            self._check()

    def begin(self) -> None:
        """A call begins. One that lasts longer than `patience_s` is the end: a rank hangs."""
        self._check()
        self._over = bool
        self._since = time.monotonic()

    def end(self, over: Callable[[], bool] | None = None) -> None:
        """The call is done, or will be once `over` says so; that is asked in the crew's thread."""
        if over is None:
            self._since = None
        else:
            self._over = over

    def reason(self, error: Exception) -> EngineFailed:
        """Why a call came to this error: of what the crew is about to find out, or of itself; the end either way."""
        if not self._judged.wait(VERDICT_S):
            self._judge(EngineFailed(f"the ranks cannot compute together: {error}", fatal=True))
        return self.verdict or EngineFailed(str(error), fatal=True)

    def close(self) -> None:
        """Let the followers end, or make them. Bounded; idempotent."""
        self._closing.set()
        if self.verdict is None:
            for line in self._lines:
                with suppress(EngineFailed):
                    line.send(pack(Close()))
        until = time.monotonic() + CLOSE_S
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        self._thread.join(CLOSE_S)
        self._end()

    def _check(self) -> None:
        if self.verdict is not None:
            raise self.verdict

    def _launch(self, rank: int, inherits: Sequence[int]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._lines.append(Line(ours, f"rank {rank}"))
            root = str(Path(shared.__file__).parents[1])
            path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            self._processes.append(
                subprocess.Popen(  # noqa: S603  ourselves
                    [sys.executable, "-m", MODULE, str(theirs.fileno())],
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *inherits),
                )
            )

    def _watch(self) -> None:
        """One life of the crew's thread: until a follower fails, or the crew is closed."""
        poll = select.poll()
        for line in self._lines:
            poll.register(line, select.POLLIN)
        by_fd = {line.fileno(): line for line in self._lines}
        while not self._closing.is_set():
            try:
                for fd, _ in poll.poll(LOOK_S * 1000):
                    self._hear(by_fd[fd])
                self._look()
            except EngineFailed as error:
                if not self._closing.is_set():
                    self._judge(error)
                return

    def _hear(self, line: Line) -> None:
        """Take one note. Raises EngineFailed when it is the follower's last."""
        try:
            note = for_leader(line.receive(LOOK_S))
        except msgspec.MsgspecError as error:
            raise EngineFailed(f"{line.peer} cannot be understood: {error}", fatal=True) from error
        except LineEnded as error:
            raise EngineFailed(f"{line.peer} has ended: {self._exit(line)}", fatal=True) from error
        if isinstance(note, Failed):
            raise EngineFailed(self._killed() or f"{line.peer}: {note.why}", fatal=True)
        self._inbox.put(note)

    def _exit(self, line: Line) -> str:
        process = self._processes[self._lines.index(line)]
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_S)
        return "its process still runs" if process.returncode is None else f"exit status {process.returncode}"

    def _killed(self) -> str:
        """Whose violent end it may be that the others complain of."""
        until = time.monotonic() + LOOK_S
        while time.monotonic() < until:
            for line, process in zip(self._lines, self._processes, strict=True):
                if (process.poll() or 0) < 0:
                    return f"{line.peer} has ended: exit status {process.returncode}"
            time.sleep(LOOK_S / 10)
        return ""

    def _look(self) -> None:
        """Raise EngineFailed when the present call has lasted too long."""
        since = self._since
        if since is None:
            return
        try:
            over = self._over()
        except RuntimeError as error:
            raise EngineFailed(f"the device failed: {error}", fatal=True) from error
        if since != self._since:  # another has begun meanwhile
            return
        if over:
            self._since = None
        elif time.monotonic() - since > self._patience_s:
            raise EngineFailed(f"a step of all ranks has not ended within {self._patience_s:g} s", fatal=True)

    def _judge(self, verdict: EngineFailed) -> None:
        """Once, whoever is first."""
        with self._judging:
            if self.verdict is not None:
                return
            self.verdict = verdict
        log.error("the ranks of the engine failed: %s", verdict)
        self._judged.set()
        for process in self._processes:
            process.kill()
        self._inbox.put(None)
        self._failed(verdict)

    def _end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for line in self._lines:
            line.close()
