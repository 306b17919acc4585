"""What may happen in a state of the relay model, with and without a fault."""

from collections.abc import Iterator

from services.gateway.relay.record import CLOSED
from tests.model import gateway, workers
from tests.model.explorer import Model, Move, Name
from tests.model.gateway import Gateway
from tests.model.machines import Machines
from tests.model.workers import Process
from tests.model.world import Life, Message, Scene, Size, World, alive, everybody, kinds


class Chances(Model[World]):
    """Knows the machines by their numbers; the model that is built on it plays the moves."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.gateways: Machines[Gateway] = Machines(Gateway.value)
        self.processes: Machines[Process] = Machines(Process.value)
        self._like_new: dict[str, int] = {}

    def _seen(self, state: World | Scene) -> gateway.Glance:
        return self.gateways.ask(state.gateway, "glance")  # type: ignore[no-any-return]

    def _glance(self, life: Life) -> workers.Glance:
        return self.processes.ask(life.process, "glance")  # type: ignore[no-any-return]

    def moves(self, state: World) -> Iterator[Move]:
        lives, seen = dict(state.lives), self._seen(state)
        faulty = state.faults > 0 and not seen.ended
        for name, is_fault in self._all_moves(state, lives, seen):
            if not is_fault or (faulty and name[0] in self.size.kinds):
                yield Move(name, is_fault)

    def _all_moves(
        self, state: World, lives: dict[str, Life | None], seen: gateway.Glance
    ) -> Iterator[tuple[Name, bool]]:
        for message in dict.fromkeys(state.net):
            if message[0] not in ("offer", "cancel") or self._arrives(message, lives[message[1]], seen):
                yield ("deliver", *message), False
            yield ("lose", *message), True
            yield ("repeat", *message), True
        decodes = list(self._decodes(state))
        for place, life in enumerate(everybody(state)):
            if not life.frozen:
                yield from self._work(place, life, [name for name in decodes if alive(lives[name])])
        for name, one in lives.items():
            if name in decodes or name in self.size.prefills:
                yield from self._changes(name, one, seen)
        for place, life in enumerate(state.zombies):
            if life.frozen or not self._glance(life).jobs:
                yield ("wake" if life.frozen else "end", place), False
        if not seen.ended:
            yield from self._timeouts(state, lives, seen)

    def _arrives(self, message: Message, to: Life | None, seen: gateway.Glance) -> bool:
        """A frozen worker hears nothing; and none is found to be dead by more than one offer."""
        return not to.frozen if to is not None else message[0] == "cancel" or message[1] not in seen.silent

    def _decodes(self, state: World) -> Iterator[str]:
        """Name the decodes; of several that nothing has happened to yet one stands for all."""
        untouched = False
        for name, life in state.lives:
            if name in self.size.decodes:
                like_new = life == Life(self._like_new[name]) and not any(name in message for message in state.net)
                if not (like_new and untouched):
                    yield name
                untouched = untouched or like_new

    def _work(self, place: int, life: Life, decodes: list[str]) -> Iterator[tuple[Name, bool]]:
        process = self._glance(life)
        for attempt, _, computed in process.jobs:
            what = (place, process.name, attempt)
            if not computed:
                yield ("step", *what), False
                continue
            for name in decodes:
                yield ("push", *what, name), False
                yield ("word lost", *what, name), True
            yield ("push lost", *what), True

    def _changes(self, name: str, life: Life | None, seen: gateway.Glance) -> Iterator[tuple[Name, bool]]:
        if life is None:
            yield ("start", name), False
            return
        if name in self.size.hurt:
            yield ("crash", name), True
        if life.frozen:
            yield ("thaw", name), False
            return
        if name in self.size.hurt:
            yield ("freeze", name), True
            yield ("second life", name), True  # the first is frozen for longer than its lease, and does not know
        process = self._glance(life)
        known = {free for one, epoch, free in seen.seen if (one, epoch) == (name, process.epoch)}
        if not known or (not process.is_decode and known != {process.free}):
            yield ("beat", name), False

    def _timeouts(
        self, state: World, lives: dict[str, Life | None], seen: gateway.Glance
    ) -> Iterator[tuple[Name, bool]]:
        """Where something would still come, it is a fault that a timeout fires."""
        yield ("client leaves",), True
        for offered, name in seen.pending:
            if not alive(lives[name]) and name in seen.silent:
                continue  # its penalty outlasts the time in which it is found to be gone
            coming = (alive(lives[name]) and ("offer", offered) in kinds(state)) or ("answer", offered) in kinds(state)
            yield ("impatient", "time_out", offered) if coming else ("time_out", offered), coming
        if seen.attempt == CLOSED:
            return
        working = [self._glance(life) for life in everybody(state) if not life.frozen]
        if seen.held:
            comes = any(attempt == seen.attempt for process in working for attempt, _, _ in process.jobs)
            comes = comes or ("frame", seen.attempt) in kinds(state)
            yield ("impatient", "stall") if comes else ("stall",), comes
        if seen.gapped:
            comes = any(
                message[0] == "frame" and message[3:5] == (seen.attempt, seen.expected) for message in state.net
            )
            yield ("impatient", "give_up_gap") if comes else ("give_up_gap",), comes
        for name in seen.holding:
            if not alive(lives[name]):
                yield ("nobody_there", name), False
