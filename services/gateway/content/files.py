"""Rules from files, read again whenever a file changes.

Owns the rules that count now. A file that cannot be used leaves the old rules in force, and the log says why, once.
Building takes a thread: a large list takes a second.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

from services.gateway.content.folding import Folder
from services.gateway.content.patterns import BadPattern
from services.gateway.content.rules import Rules, compile_pattern, compile_word
from shared.config import ModeratorSettings
from shared.errors import ConfigError

MAX_FILE_BYTES: Final = 64 << 20
MOST_WORDS: Final = 100_000
MOST_PATTERNS: Final = 1_000
COMMENT: Final = "#"
SHOWN_FAULTS: Final = 10

Stamp = tuple[tuple[str, int, int, int] | None, ...]
T = TypeVar("T")

log = logging.getLogger(__name__)


class RuleFiles:
    """The rules of one moderator. `rules` is replaced as a whole; whoever reads it anew sees the newest."""

    def __init__(self, name: str, settings: ModeratorSettings) -> None:
        """Read the files for the first time. Raises ConfigError."""
        self.name = name
        self.settings = settings
        self._turn = Lock()  # of a look, which has a thread, and of a reload; held for an assignment
        self.seen = self.stamp()
        self.rules = self._read()

    @property
    def categories(self) -> list[str]:
        """All that its files stand for."""
        return sorted({*self.settings.words, *self.settings.patterns})

    def stamp(self) -> Stamp:
        """Say how the files look from outside. Touches the disk."""
        files = (*self.settings.words.values(), *self.settings.patterns.values())
        return tuple(_look(Path(file)) for file in files)

    def take(self, other: "RuleFiles") -> None:
        """Go on as another does that was made of newer settings. Streams that run notice at their next piece."""
        with self._turn:
            self.settings, self.seen, self.rules = other.settings, other.seen, other.rules

    def refresh(self) -> bool:
        """Read the files again if they have changed; whether the rules are new. Touches the disk, for seconds maybe."""
        stamp = self.stamp()
        if stamp == self.seen:
            return False
        self.seen = stamp  # a broken file is told once, not at each look
        try:
            rules = self._read()
        except ConfigError as error:
            log.error("rules not reloaded; the old ones stay in force", extra={"why": error.faults})  # noqa: TRY400
            return False
        with self._turn:
            if self.seen is not stamp:  # a reload of the configuration came meanwhile, with newer ones
                return False
            self.rules = rules
        log.info("rules reloaded", extra={"moderator": self.name})
        return True

    def _read(self) -> Rules:
        settings, faults = self.settings, list[str]()
        folder = Folder(ignore_case=settings.ignore_case, ignore_accents=settings.ignore_accents)
        read_word = partial(compile_word, folder=folder)
        read_pattern = partial(compile_pattern, folder=folder, ignore_case=settings.ignore_case)
        words: dict[str, str] = {}
        for word, category in _rules(settings.words, read_word, faults):
            words.setdefault(word, category)
        patterns = list(_rules(settings.patterns, read_pattern, faults))
        if not (words or patterns or faults):
            faults.append("its files hold no rule")
        if len(words) > MOST_WORDS or len(patterns) > MOST_PATTERNS:
            faults.append(f"its files hold more than {MOST_WORDS} words or {MOST_PATTERNS} patterns")
        rules = None
        if not faults:
            make = partial(Rules, words, patterns, folder=folder, whole=settings.whole_words, window=settings.window)
            rules = _tried(make, "its patterns together", faults)
        if rules is None:
            more = [f"and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
            raise ConfigError([f"moderation.{self.name}: {fault}" for fault in faults[:SHOWN_FAULTS] + more])
        return rules


def _rules(files: dict[str, str], read: Callable[[str], T], faults: list[str]) -> Iterator[tuple[T, str]]:
    """Read the rules of files, each with its category."""
    for category, file in files.items():
        for number, line in _lines(file, faults):
            made = _tried(partial(read, line), f"{file}:{number}", faults)
            if made is not None:
                yield made, category


def _tried(make: Callable[[], T], where: str, faults: list[str]) -> T | None:
    try:
        return make()
    except BadPattern as error:
        faults.append(f"{where} cannot be used: {error}")
        return None


def _look(path: Path) -> tuple[str, int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return (str(path), seen.st_ino, seen.st_mtime_ns, seen.st_size)


def _lines(file: str, faults: list[str]) -> list[tuple[int, str]]:
    """Read the rules of a file, each with the number of its line; comments and empty lines are none."""
    try:
        path = Path(file)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            faults.append(f"{file} has {size} bytes; the limit is {MAX_FILE_BYTES}")
            return []
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        faults.append(f"{file} cannot be read: {error.strerror}")
        return []
    except UnicodeDecodeError as error:
        faults.append(f"{file} is not UTF-8: byte {error.start}")
        return []
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in lines if line and not line.startswith(COMMENT)]
