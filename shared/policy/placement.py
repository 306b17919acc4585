"""Where a request may go: what maps, statuses, answers and silence say about each instance.

Owns what one observer (a gateway; a prefill that looks for a decode) believes of the workers. Sends nothing and starts
nothing. A worker is a candidate when the newest map lists it as joined and it said itself that it is ready, under an
epoch not older than the map's; see `candidates` for what its group must be like.
"""

from collections import Counter
from collections.abc import Collection

from shared.messages import Epoch, Member, Role, ScenarioMap, State, Status
from shared.policy.candidates import Candidates
from shared.policy.deadlines import Deadlines
from shared.policy.hearing import ROUNDING_S, Hearing
from shared.policy.pool import Standing
from shared.policy.probing import Presence, Probing
from shared.policy.recent import Recent
from shared.policy.view_rules import EPOCHS_REMEMBERED, NEVER, Lost, ViewRules
from shared.policy.worker import Worker, tie_of

__all__ = ["FleetView", "Lost", "ViewRules"]


class FleetView:
    """One observer's view of the workers. Ranks candidates; says who was lost."""

    def __init__(self, rules: ViewRules | None = None, watcher: str = "") -> None:
        self._rules = rules or ViewRules()
        self.probing = Probing(self._rules.probes)
        self._watcher = watcher
        self._patience_s = self._rules.heartbeat_s * self._rules.misses
        self._hearing = Hearing(self._patience_s)
        self._workers: dict[str, Worker] = {}
        self._maps: dict[str, tuple[Epoch, int]] = {}
        self.candidates = Candidates()
        self._silence: Deadlines[str] = Deadlines()  # on the clock of silence
        self._penalties: Deadlines[str] = Deadlines()
        self._departed: Recent[str, Epoch] = Recent(EPOCHS_REMEMBERED)  # gone, and in no map: their highest
        self._lost: list[Lost] = []
        self._turns = 0

    # ---- what is heard

    def see(self, message: Status | ScenarioMap, now: float) -> list[Lost]:
        """Take in a status or map (older epochs, numbers and versions are ignored); who was lost by it."""
        self._judge(now)
        self._hearing.heard(now)
        match message:
            case Status():
                self._see_status(message, now)
            case ScenarioMap():
                self._see_map(message, now)
        return self._take_lost()

    def hear(self, now: float) -> None:
        """Something else came over the bus (a Pulse, an answer): whoever is silent now is so by itself."""
        self._judge(now)
        self._hearing.heard(now)

    def nobody_there(self, instance: str, now: float) -> list[Lost]:
        """Take in NATS's word that nobody listens in the instance's name; who was lost by it."""
        self._judge(now)
        if not self.lost(instance):
            match self.probing.nobody(instance, now):
                case Presence.DOUBTED:
                    self.suspect(instance, now)
                case Presence.GONE:
                    self._bury(self._workers.get(instance) or self._new(instance), "nobody listens")
                case Presence.AS_BEFORE:
                    pass
        return self._take_lost()

    def tick(self, now: float) -> list[Lost]:
        """Judge silence up to now; who was lost by it."""
        self._judge(now)
        return self._take_lost()

    def next_deadline(self) -> float | None:
        """When `tick` should be called next; ask again after each message."""
        penalty, silence = self._penalties.next(), self._silence.next()
        silent_at = None if silence is None else self._hearing.when(silence)
        return penalty if silent_at is None or (penalty is not None and penalty < silent_at) else silent_at

    # ---- whom to ask

    def best(self, scenario: str, role: Role, now: float, group: str = "", exclude: Collection[str] = ()) -> str | None:
        """The first candidate that has a free slot as far as is known; cheap at any fleet size."""
        self._judge(now)
        return self.candidates.best(scenario, role, group, exclude)

    def next(self, scenario: str, role: Role, now: float, group: str, exclude: Collection[str]) -> Standing | None:
        """The first candidate that is not excluded: the full after the free, suspects last, the lost never."""
        self._judge(now)
        return self.candidates.next(scenario, role, group, exclude)

    def exists(self, scenario: str, role: Role, group: str = "") -> bool:
        """Whether any worker of the role is there to be asked, now or later."""
        return self.candidates.exists(scenario, role, group)

    def group(self, instance: str) -> str:
        """Name its group by the newest map that lists it; empty where none did."""
        worker = self._workers.get(instance)
        return "" if worker is None else worker.group

    def epoch(self, instance: str) -> Epoch | None:
        """Say its newest known epoch."""
        worker = self._workers.get(instance)
        return worker.epoch if worker is not None else self._departed.get(instance)

    def slots(self, instance: str) -> int:
        """Count the slots that it said it has."""
        worker = self._workers.get(instance)
        return 0 if worker is None or worker.status is None else worker.status.slots

    def streams(self, scenario: str) -> Counter[str]:
        """Count the streams at a scenario's workers by group, whoever sent them."""
        return sum((Counter({one.group: one.streams}) for one in self.candidates.members(scenario)), Counter())

    def members(self, scenario: str, now: float) -> list[str]:
        """Name who may hold something of a scenario: those that joined and are ready, closing groups included."""
        self._judge(now)
        return [worker.instance for worker in self.candidates.members(scenario) if worker.routable]

    def lost(self, instance: str) -> bool:
        """Whether it was taken for lost and has not been heard since."""
        worker = self._workers.get(instance)
        return worker.gone if worker is not None else instance in self._departed

    def current(self, instance: str, epoch: Epoch) -> bool:
        """False: the epoch is older than the instance's newest known; refuse what carries it (frames, answers)."""
        known = self.epoch(instance)
        return known is None or epoch >= known

    # ---- our own dealings: after one `dispatched` one answer, after one `accepted` one `settled`

    def dispatched(self, instance: str) -> None:
        """Count an offer under way: one more stream. Exactly one of the next four follows."""
        if worker := self._workers.get(instance):
            self._turns += 1
            worker.dispatch(self._turns)
            self.candidates.place(worker)

    def accepted(self, instance: str) -> None:
        """Note that it holds a slot; `settled` follows."""
        if worker := self._workers.get(instance):
            stays = worker.unanswered > 0 and not worker.penalties  # an offer became a slot: its standing is the same
            worker.answer(taken=1)
            if not stays:
                self._pardon(worker)

    def rejected(self, instance: str) -> None:
        """Note that it holds nothing; it gets no further offer before its next status."""
        if worker := self._workers.get(instance):
            worker.answer(left=1)
            worker.closed = True
            self._pardon(worker)

    def withdrawn(self, instance: str) -> None:
        """Take the offer back before its answer; a slot may be held until the next status says otherwise."""
        if worker := self._workers.get(instance):
            worker.answer(taken=1, left=1)
            self.candidates.place(worker)

    def unanswered(self, instance: str, now: float) -> None:
        """Note that it did not answer."""
        if worker := self._workers.get(instance):
            worker.answer(left=1)
            self.suspect(instance, now)

    def settled(self, instance: str) -> None:
        """Note that an accepted stream has left the instance (handed off, ended, failed)."""
        if worker := self._workers.get(instance):
            before, worker.open = worker.streams, max(0, worker.open - 1)
            if worker.streams != before:
                self.candidates.place(worker)

    def suspect(self, instance: str, now: float) -> None:
        """Ask others first for a while, the longer the more often this happened since its last answer."""
        if worker := self._workers.get(instance):
            penalty_s = worker.punish(self._rules.penalty_s, self._rules.penalty_max_s)
            self._penalties.set(instance, now + penalty_s)
            self.candidates.place(worker)

    # ---- statuses and maps

    def _see_status(self, status: Status, now: float) -> None:
        worker = self._workers.get(status.instance)
        if not self.current(status.instance, status.epoch) or (worker is not None and worker.outdates(status)):
            return
        if worker is None:
            worker = self._new(status.instance)
        elif worker.restarted(status):
            self._lose(worker, "restarted")
        worker.epoch = status.epoch
        self.probing.heard(status.instance, now)
        worker.report(status)
        if status.state in (State.STOPPED, State.FAILED):
            self._bury(worker, status.state.value, died=status.state is State.FAILED)
            return
        worker.gone = False
        if not worker.removed or status.state is State.DRAINING:
            # One that left the map yet goes on as if ready does not know: what it holds is given up in time.
            self._silence.set(status.instance, self._hearing.clock(now) + self._patience_s)
        self.candidates.place(worker)

    def _see_map(self, message: ScenarioMap, now: float) -> None:
        if (message.epoch, message.version) <= self._maps.get(message.scenario, ((-1, -1), -1)):
            return
        self._maps[message.scenario] = (message.epoch, message.version)
        listed: set[str] = set()
        self.candidates.know(message)
        for group in message.groups:
            for role, members in ((Role.PREFILL, group.prefill), (Role.DECODE, group.decode)):
                for member in members:
                    listed.add(member.instance)
                    self._join(message.scenario, group.name, role, member, now)
        for worker in self.candidates.members(message.scenario):
            if worker.instance not in listed:
                self._leave(worker, now)

    def _join(self, scenario: str, group: str, role: Role, member: Member, now: float) -> None:
        worker = self._workers.get(member.instance) or self._new(member.instance)
        if (worker.scenario, worker.group, worker.role) != (scenario, group, role):
            self.candidates.leave(worker)
            worker.scenario, worker.group, worker.role = scenario, group, role
        worker.joined = member.joined
        if self.current(member.instance, member.epoch):
            worker.epoch = member.epoch
        worker.member = member.epoch
        worker.removed = False
        self.candidates.join(worker)
        if member.instance not in self._silence and not worker.gone:
            self._silence.set(member.instance, self._hearing.clock(now) + self._patience_s)
        self.candidates.place(worker)

    def _leave(self, worker: Worker, now: float) -> None:
        self.candidates.leave(worker)
        worker.removed = True
        if not worker.gone and (worker.status is None or worker.status.state is not State.DRAINING):
            allowed = self._hearing.clock(now) + self._patience_s
            self._silence.set(worker.instance, min(allowed, self._silence.get(worker.instance) or allowed))
        self._tidy(worker)

    def _new(self, instance: str) -> Worker:
        worker = Worker(instance, tie_of(self._watcher, instance), epoch=self._departed.get(instance))
        self._departed.drop(instance)
        self._workers[instance] = worker
        return worker

    def _tidy(self, worker: Worker) -> None:
        """Forget one that is gone and in no map."""
        if worker.gone and worker.member is None:
            del self._workers[worker.instance]
            self._departed.put(worker.instance, worker.epoch or NEVER)

    # ---- silence and loss

    def _judge(self, now: float) -> None:
        if self._penalties.first > now and self._silence.first > now + ROUNDING_S:  # its clock shows `now` at most
            return
        for instance in self._penalties.due(now):
            if worker := self._workers.get(instance):
                worker.punished = False
                self.candidates.place(worker)
        clock = self._hearing.clock(now)
        for instance in self._silence.due(clock + ROUNDING_S):
            worker = self._workers[instance]
            if worker.removed or worker.silent:
                # it may as well be frozen, or cut off from us: that says nothing against what it held
                self._bury(worker, "removed from the map" if worker.removed else "silent", died=False)
            else:
                worker.silent = True
                self._silence.set(instance, clock + self._rules.heartbeat_s)
                self.candidates.place(worker)

    def _bury(self, worker: Worker, reason: str, *, died: bool = True) -> None:
        self._lose(worker, reason, died=died)
        self.candidates.place(worker)
        self._tidy(worker)

    def _lose(self, worker: Worker, reason: str, *, died: bool = True) -> None:
        if worker.gone:
            return
        epoch = worker.status.epoch if worker.status is not None else worker.member
        self._lost.append(Lost(worker.instance, epoch or NEVER, reason, died))
        worker.gone = True
        worker.forget_streams()
        self.probing.forget(worker.instance)
        self._silence.drop(worker.instance)
        self._penalties.drop(worker.instance)

    def _take_lost(self) -> list[Lost]:
        lost, self._lost = self._lost, []
        return lost

    def _pardon(self, worker: Worker) -> None:
        worker.penalties = 0
        worker.punished = False
        self._penalties.drop(worker.instance)
        self.candidates.place(worker)
