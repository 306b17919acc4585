"""Real state machines as numbers: equal ones have the same, and what one does in answer to a call is found out once.

A call is made on a copy of the real object, the first time; later it is looked up. So a model that combines a few
machines in millions of ways runs their real code only as often as they really differ.
"""

import pickle
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

M = TypeVar("M")


class Machines(Generic[M]):
    """All states of one kind of machine that were met so far."""

    def __init__(self, value: Callable[[M], Hashable]) -> None:
        self._value = value
        self._numbers: dict[Hashable, int] = {}
        self._stored: list[bytes] = []
        self._answers: dict[tuple[Any, ...], tuple[Any, int]] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def enter(self, machine: M) -> int:
        """Return the number of a machine."""
        value = self._value(machine)
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self._stored)
            self._stored.append(pickle.dumps(machine, pickle.HIGHEST_PROTOCOL))
        return number

    def call(self, number: int, method: str, *arguments: Hashable) -> tuple[Any, int]:
        """Call a method; its result, and the machine's number after that."""
        key = (number, method, arguments)
        answer = self._answers.get(key)
        if answer is None:
            machine: M = pickle.loads(self._stored[number])  # noqa: S301  # our own bytes
            result = getattr(machine, method)(*arguments)
            answer = self._answers[key] = (result, self.enter(machine))
        return answer

    def ask(self, number: int, method: str) -> Any:
        """Call a method that changes nothing."""
        return self.call(number, method)[0]
