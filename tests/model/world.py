"""A state of the relay model: who lives, what is in flight, how many faults may still come."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

Message = tuple[Any, ...]
FAULTS = frozenset(
    ("lose", "repeat", "crash", "freeze", "second life", "impatient", "push lost", "word lost", "client leaves")
)


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    tokens: int = 2
    prefills: tuple[str, ...] = ("p1",)
    decodes: tuple[str, ...] = ("d1", "d2")
    faults: int = 1
    kinds: frozenset[str] = FAULTS
    hurt: frozenset[str] = frozenset({"p1", "p2", "d1", "d2"})  # whose process faults may hit


class Life(NamedTuple):
    """A process, by the number of its state."""

    process: int
    frozen: bool = False


class World(NamedTuple):
    """One state."""

    gateway: int
    lives: tuple[tuple[str, Life | None], ...]  # by name
    zombies: tuple[Life, ...]  # another process has their name
    net: tuple[Message, ...]
    faults: int
    epochs: int


_rank = cache(repr)


class Scene:
    """A world that is being changed."""

    def __init__(self, world: World) -> None:
        self.gateway = world.gateway
        self.lives = dict(world.lives)
        self.zombies = list(world.zombies)
        self.net = list(world.net)
        self.faults = world.faults
        self.epochs = world.epochs

    def world(self) -> World:
        lives, net = tuple(self.lives.items()), tuple(sorted(self.net, key=_rank))
        zombies = tuple(sorted(self.zombies))
        return World(self.gateway, lives, zombies, net, self.faults, self.epochs)


def everybody(state: World) -> list[Life]:
    """All that run or are frozen: those with a name of their own first."""
    return [life for _, life in state.lives if life is not None] + list(state.zombies)


def alive(life: Life | None) -> bool:
    """Whether it hears what is said to it."""
    return life is not None and not life.frozen


def kinds(state: World) -> set[tuple[str, int]]:
    """What is in flight about which attempt."""
    return {(message[0], message[2 if message[0] == "offer" else 3]) for message in state.net if len(message) > 3}
