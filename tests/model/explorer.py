"""Explores every state that a model can reach, breadth first, and proves two things of all of them.

Nothing the model forbids ever happens; and from every state, if no further fault comes, a way leads to a state in which
all is done. A counterexample is the shortest list of moves that leads to it.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)
Name = tuple[Any, ...]


class Move(NamedTuple):
    """What may happen next in a state."""

    name: Name
    fault: bool = False  # it need not happen, and at some time no more of them do


class Violation(AssertionError):
    """Raised where a state or move breaks what the model claims."""


class Model(ABC, Generic[S]):
    """States are values: equal ones are one."""

    @abstractmethod
    def start(self) -> S: ...

    @abstractmethod
    def moves(self, state: S) -> Iterator[Move]: ...

    @abstractmethod
    def play(self, state: S, name: Name) -> S:
        """Return the state after the move; raise Violation where it does what is forbidden."""

    @abstractmethod
    def done(self, state: S) -> bool:
        """Whether nothing is left to be done."""


@dataclass
class Report:
    """What was explored."""

    states: int
    moves: int
    done: int
    depth: int

    def __str__(self) -> str:
        return f"{self.states} states, {self.moves} moves, {self.done} states in which all is done, depth {self.depth}"


class Explorer(Generic[S]):
    """One exploration."""

    def __init__(self, model: Model[S], most_states: int = 5_000_000) -> None:
        self._model = model
        self._most = most_states
        self._known: dict[S, int] = {}
        self._came: list[tuple[int, Name]] = []  # by state: from where, by which move
        self._depth: list[int] = []
        self._queue: deque[S] = deque()
        self._back: list[list[int]] = []  # by state: from where it is reached without a fault
        self._done: list[int] = []

    def run(self) -> Report:
        """Explore everything; raises Violation with the way to it."""
        self._enter(self._model.start(), -1, ())
        moves = 0
        while self._queue:
            state = self._queue.popleft()
            number = self._known[state]
            for move in self._model.moves(state):
                moves += 1
                try:
                    after = self._model.play(state, move.name)
                except Violation as error:
                    raise self._told(str(error), number, move.name) from None
                reached = self._enter(after, number, move.name)
                if not move.fault:
                    self._back[reached].append(number)
        self._check_ends()
        return Report(len(self._came), moves, len(self._done), max(self._depth))

    def _enter(self, state: S, came_from: int, by: Name) -> int:
        number = self._known.get(state)
        if number is None:
            number = self._known[state] = len(self._came)
            if number >= self._most:
                raise RuntimeError(f"more than {self._most} states: make the configuration smaller")
            self._came.append((came_from, by))
            self._depth.append(0 if came_from < 0 else self._depth[came_from] + 1)
            self._back.append([])
            self._queue.append(state)
            if self._model.done(state):
                self._done.append(number)
        return number

    def _check_ends(self) -> None:
        """From every state a way without faults leads to where all is done: no deadlock, no livelock."""
        ends = set(self._done)
        queue = deque(self._done)
        while queue:
            for before in self._back[queue.popleft()]:
                if before not in ends:
                    ends.add(before)
                    queue.append(before)
        stuck = next((number for number in range(len(self._came)) if number not in ends), None)
        if stuck is not None:
            raise self._told(f"from here on it never ends ({len(self._came) - len(ends)} such states)", stuck, None)

    def _told(self, what: str, number: int, last: Name | None) -> Violation:
        way = [] if last is None else [last]
        while number > 0:
            number, by = self._came[number]
            way.append(by)
        steps = "\n".join(f"  {place}. {' '.join(map(str, move))}" for place, move in enumerate(reversed(way), 1))
        return Violation(f"{what}\n{steps}")
