"""A line to a NATS server that loses, doubles, delays and repeats whole messages, by subject.

Owns the reading of NATS' client protocol, as far as it takes to tell messages apart; the rest passes as it came.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tests.faults.wire import Stretch, Wire

END = b"\r\n"
MESSAGES = (b"PUB", b"HPUB", b"MSG", b"HMSG")
SPACE = (b" ", b"\t")


@dataclass(frozen=True, slots=True)
class Frame:
    """One command of the protocol, whole. `subject` is empty for one that carries no message."""

    raw: bytes
    subject: str = ""
    reply: str = ""
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A message that passed, and where."""

    frame: Frame
    stretch: Stretch


@dataclass
class Rule:
    """What happens to the messages of some subjects. The first rule that names a message decides about it."""

    subject: Callable[[str], bool] = lambda _: True
    drop: float = 0.0
    twice: float = 0.0
    late: float = 0.0  # overtaken by what follows
    late_s: float = 0.05
    up: bool = True  # messages to the server
    down: bool = True  # messages from it


class NatsWire(Wire):
    """A Wire whose pieces are the protocol's commands."""

    def __init__(self, target: int, *, seed: int = 0) -> None:
        super().__init__(target, seed=seed)
        self.rules: list[Rule] = []
        self.record: Callable[[str], bool] = lambda _: False
        self.recorded: list[Recorded] = []
        self.dropped = self.doubled = self.delayed = 0
        self._random = Random(seed + 2)  # noqa: S311  # a seed must repeat

    def splitter(self) -> Callable[[Stretch, bytes], list[bytes]]:
        """See Wire."""
        readers = {True: Reader(), False: Reader()}

        def split(stretch: Stretch, data: bytes) -> list[bytes]:
            upwards = stretch.way is self.up
            return [piece for frame in readers[upwards].feed(data) for piece in self._fate(stretch, frame, up=upwards)]

        return split

    async def heal(self) -> None:
        """See Wire."""
        self.rules.clear()
        await super().heal()

    def replay(self, recorded: Recorded) -> None:
        """Say a message again, where it was said."""
        recorded.stretch.inject(recorded.frame.raw)

    def _fate(self, stretch: Stretch, frame: Frame, *, up: bool) -> list[bytes]:
        if not frame.subject:
            return [frame.raw]
        if self.record(frame.subject):
            self.recorded.append(Recorded(frame, stretch))
        rule = next((r for r in self.rules if (r.up if up else r.down) and r.subject(frame.subject)), None)
        if rule is None:
            return [frame.raw]
        if self._random.random() < rule.drop:
            self.dropped += 1
            return []
        if self._random.random() < rule.late:
            self.delayed += 1
            stretch.inject(frame.raw, rule.late_s * (0.5 + self._random.random()))
            return []
        if self._random.random() < rule.twice:
            self.doubled += 1
            return [frame.raw, frame.raw]
        return [frame.raw]


class Reader:
    """Cuts one direction's bytes into commands."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the commands that are whole now."""
        self._data += data
        while (frame := self._next()) is not None:
            self._data = self._data[len(frame.raw) :]
            yield frame

    def _next(self) -> Frame | None:
        end = self._data.find(END)
        if end < 0:
            return None
        words = self._data[:end].split()
        if not words or words[0].upper() not in MESSAGES:
            return Frame(self._data[: end + 2])
        size = end + 2 + int(words[-1]) + 2
        if len(self._data) < size:
            return None
        name = words[0].upper()
        numbers = 2 if name.startswith(b"H") else 1
        names = words[1:-numbers]
        if name.endswith(b"MSG"):
            del names[1]  # the subscription's number
        headers = int(words[-2]) if numbers == 2 else 0
        reply = names[1].decode() if len(names) > 1 else ""
        return Frame(self._data[:size], names[0].decode(), reply, self._data[end + 2 + headers : size - 2])
