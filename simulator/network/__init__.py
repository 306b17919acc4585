"""How long KV buffers are on their way: links that transfers share, and paths that collide."""

from collections.abc import Callable
from typing import Protocol


class Network(Protocol):
    """Between instances. Messages of the bus take a fixed time and do not go this way."""

    def place(self, instance: str) -> None:
        """An instance is there from now on; the same name again is the same place."""
        ...

    def send(self, source: str, target: str, nbytes: int, done: Callable[[], None]) -> None:
        """Call `done` when the whole buffer has arrived and was acknowledged. Nothing is lost on the way."""
        ...
