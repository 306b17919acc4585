"""The truth about the instances of a `FleetWorld`: what they are, what they were told, whom they can reach."""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.messages import Epoch, Health, Link, Links, Role, ScenarioMap, State, Status
from shared.policy.fleet.events import NOWHERE, Assign, Place

WORKERS = (Role.PREFILL, Role.DECODE)
NUMBERS = 10_000
"""Statuses of one process; a later process has lower numbers, as if each had lived for longer than the next."""
LIVES = 1_000_000


@dataclass
class Instance:
    """One instance: a process now, perhaps another one soon."""

    name: str
    role: Role
    place: Place | None
    epoch: Epoch
    life: int
    state: State = State.READY
    number: int = 0
    told: Place | None = None  # to become this, and not ready yet
    began: bool = False  # as that
    term: int = 0  # in which lead it was told
    deaf: bool = False  # no push comes through to this process
    health: Health = Health.OK

    @property
    def working(self) -> bool:
        return self.role in WORKERS and self.state is not State.STOPPED


class Instances:
    """All that are alive."""

    def __init__(self) -> None:
        self.by_name: dict[str, Instance] = {}
        self.epochs = 1
        self.lives = 0
        self.standbys = 0
        self.was_ready: set[tuple[str, Epoch]] = set()
        self.life_of: dict[tuple[str, Epoch], int] = {}
        self.reached: set[tuple[str, Epoch, str, Epoch]] = set()  # as prefills have said
        self.missed: set[tuple[str, Epoch, str, Epoch]] = set()

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self.by_name.values()))

    def next_epoch(self) -> Epoch:
        self.epochs += 1
        return (1, self.epochs)

    def start(self, name: str, role: Role, place: Place | None, *, state: State = State.READY) -> None:
        self.by_name[name] = Instance(name, role, place, (0, 0), 0, state)
        self.new_life(self.by_name[name])

    def new_life(self, one: Instance) -> None:
        self.lives += 1
        one.life, one.epoch, one.number = self.lives, self.next_epoch(), (LIVES - self.lives) * NUMBERS
        one.deaf, one.health = False, Health.OK

    def add_standby(self) -> str:
        self.standbys += 1
        name = f"s{self.standbys}"
        self.start(name, Role.STANDBY, None)
        return name

    def status(self, name: str) -> Status:
        one = self.by_name[name]
        one.number += 1
        scenario, group = (one.place.scenario, one.place.group) if one.place else ("", "")
        self.life_of[one.name, one.epoch] = one.life
        if one.state is State.READY:
            self.was_ready.add((one.name, one.epoch))
        where = (one.role, one.state, scenario, group)
        return Status(one.name, one.epoch, *where, number=one.number, health=one.health)

    def links(self, name: str, known: ScenarioMap | None) -> Links:
        """What a prefill says of the decodes that the map has in its group; and note it."""
        one, links = self.by_name[name], []
        for group in () if known is None or one.place is None else known.groups:
            for member in group.decode if group.name == one.place.group else ():
                decode = self.by_name.get(member.instance)
                there = decode is not None and decode.working and decode.epoch == member.epoch
                verified = there and decode is not None and not decode.deaf
                links.append(Link(member.instance, member.epoch, verified, "" if verified else "refused"))
                pair = (name, one.epoch, member.instance, member.epoch)
                (self.reached if verified else self.missed).add(pair)
        return Links(name, one.epoch, links)

    def obey(self, order: Assign, term: int) -> bool:
        """The instance hears the order; False: it cannot."""
        one, place = self.by_name.get(order.instance), Place(order.scenario, order.group, order.role)
        if one is None:
            return False
        if one.told is not None:
            return one.told == place and not one.began  # it has heard the order before
        if one.state is not State.READY or (one.role is Role.STANDBY and place == NOWHERE):
            return False
        one.state = State.STOPPED if one.role is Role.STANDBY else State.DRAINING
        one.told, one.term, one.began = place, term, False
        return True

    def go_on(self, name: str) -> None:
        """One step further on the way to what it was told, or from its start."""
        one = self.by_name[name]
        if one.told is not None and not one.began:
            if one.state is State.DRAINING:
                one.state = State.STOPPED
            else:
                one.role, one.place, one.began = one.told.role, None if one.told == NOWHERE else one.told, True
                one.state = State.STARTING
                self.new_life(one)
        elif one.state is State.STARTING:
            one.state, one.told, one.began = State.READY, None, False

    def on_their_way(self, place: Place) -> list[Instance]:
        return [one for one in self if one.told == place]
