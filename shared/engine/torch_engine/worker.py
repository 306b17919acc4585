"""The thread that owns torch: takes commands between steps, steps while there is work, reports to the loop.

Owns the Runner. Knows the loop only as a function to post reports with; a report goes out before a step (the commands'
answers), after it (its tokens), and after the KV gathers that follow it, so that a first token never waits for a copy.
"""

import logging
import queue
import threading
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from shared.engine import EngineLoad, Sequence
from shared.engine.torch_engine.runner import Outcome, Runner
from shared.errors import BatonError, EngineFailed
from shared.kv.arena import Arena
from shared.text.matching import Matcher

log = logging.getLogger(__name__)

UNREAD_STEPS: Final = 256
"""So many steps may wait for their reader; then the engine pauses."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """Take in a prompt; its KV goes to the buffer."""

    sequence: Sequence
    buffer: memoryview
    matcher: Matcher | None = None  # of its constraint
    grows: bool = False  # report what of the buffer is final, chunk by chunk


@dataclass(frozen=True, slots=True)
class Insert:
    """Take in a sequence whose KV is in the buffer."""

    sequence: Sequence
    kv_tokens: int
    buffer: memoryview
    matcher: Matcher | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Give the arena so many bytes of the device's memory, at most."""

    arena: Arena
    nbytes: int


@dataclass(frozen=True, slots=True)
class Release:
    """Forget a sequence."""

    key: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Look again whether there is something to do."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The last command."""


Command = Prefill | Insert | Stage | Release | Wake | Stop
Answer = Future[None]


@dataclass(slots=True)
class Report:
    """From the thread to the loop. `ended`: the thread takes nothing more."""

    answers: list[tuple[Answer, BatonError | None]] = field(default_factory=list)
    outcome: Outcome | None = None
    exported: list[str] = field(default_factory=list)
    grown: list[tuple[str, int]] = field(default_factory=list)  # prompts, and how many of their tokens are exported
    ready: bool = False
    ended: EngineFailed | None = None


class Worker:
    """`build` makes the runner and `post` takes the reports, both called in the thread.

    The thread is a daemon: it must not keep a process alive.
    """

    def __init__(self, build: Callable[[], Runner], post: Callable[[Report], object]) -> None:
        self.runner: Runner | None = None
        self._build = build
        self._post = post
        self._commands: queue.SimpleQueue[tuple[Command, Answer | None]] = queue.SimpleQueue()
        self._stopped = False
        self._sent_steps = 0  # written by the thread alone
        self._read_steps = 0  # written by the loop alone
        self._thread = threading.Thread(target=self._live, name="torch-engine", daemon=True)

    @property
    def load(self) -> EngineLoad:
        """Readable from any thread."""
        return self.runner.load if self.runner else EngineLoad(0, 0, 0)

    def start(self) -> None:
        """Begin to load the model; a report says `ready`, or how it ended."""
        self._thread.start()

    def send(self, command: Command, answer: Answer | None = None) -> None:
        """Have a command done between two steps."""
        self._commands.put((command, answer))

    def has_read(self) -> None:
        """The loop has read one more step."""
        full = self._full
        self._read_steps += 1
        if full:
            self.send(Wake())

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end, which a Stop brings; whether it came in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def _full(self) -> bool:
        return self._sent_steps - self._read_steps >= UNREAD_STEPS

    def _live(self) -> None:
        """One life. Whatever goes wrong ends it, and the loop is told."""
        ended = EngineFailed("the engine is closed", fatal=True)
        try:
            self.runner = runner = self._build()
            self._post(Report(ready=True))
            while not self._stopped:
                self._turn(runner)
        except BatonError as error:
            ended = EngineFailed(str(error), fatal=True)
        except Exception as error:
            log.exception("the engine died")
            ended = EngineFailed(f"the engine died: {error!r}", fatal=True)
        try:
            if self.runner is not None:
                self.runner.close()
            self._post(Report(ended=ended))
        except RuntimeError:  # the loop is closed: nobody is left to tell
            log.debug("the engine outlived its event loop")

    def _turn(self, runner: Runner) -> None:
        """Commands, then at most one step: its tokens, or those of the step before it, are told."""
        report = Report(answers=self._obey(runner))
        if report.answers:
            self._post(report)
        if self._stopped or runner.idle or self._full:
            return
        outcome = runner.step()
        if not outcome:  # launched, and nothing read yet
            return
        self._sent_steps += bool(outcome.step.sampled or outcome.step.failed)
        self._post(Report(outcome=outcome))
        grown = [(key, runner.export_more(key)) for key in outcome.grown]
        exported = [key for key, _ in outcome.prefilled]
        for key in exported:
            runner.export(key)
        if exported or grown:
            self._post(Report(exported=exported, grown=grown))

    def _obey(self, runner: Runner) -> list[tuple[Answer, BatonError | None]]:
        """Do all commands that are there; wait for one when there is nothing else to do."""
        answers: list[tuple[Answer, BatonError | None]] = []
        wait = runner.idle or self._full
        while not self._stopped:
            try:
                command, answer = self._commands.get(block=wait)
            except queue.Empty:
                break
            wait = False
            refusal = self._do(runner, command)
            if answer is not None:
                answers.append((answer, refusal))
        return answers

    def _do(self, runner: Runner, command: Command) -> BatonError | None:
        try:
            match command:
                case Prefill(sequence, buffer, matcher, grows):
                    runner.add_prefill(sequence, buffer, matcher, grows=grows)
                case Insert(sequence, kv_tokens, buffer, matcher):
                    runner.insert(sequence, kv_tokens, buffer, matcher)
                case Stage(arena, nbytes):
                    runner.stage(arena, nbytes)
                case Release(key):
                    runner.release(key)
                case Stop():
                    self._stopped = True
                case Wake():
                    pass
        except BatonError as error:
            return error
        return None
