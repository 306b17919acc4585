"""Carries out the monitor's orders to instances: become this, drain, be released; and brings new ones.

Owns the way of an instance from one role to another: it finishes what it holds, its process starts anew, its model
loads, and it is ready. Decides nothing.
"""

from collections.abc import Callable
from itertools import count
from typing import Final

from shared.messages import Role
from shared.policy.fleet.events import NOWHERE, Assign, AssignAccepted, AssignFailed, Place
from shared.worker.work import Level
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import GroupSpec, ScenarioSpec
from simulator.cluster.standby import Standby
from simulator.cluster.worker import Worker

LOOK_S: Final = 0.05
"""Between two looks at whether a draining worker holds anything yet."""
MICRO: Final = 1_000_000

Answer = Callable[[AssignAccepted | AssignFailed], None]


class Becoming:
    """All instances of a simulation. `start_s`: from an order to the first word in the new role."""

    def __init__(
        self, simulation: Simulation, *, start_s: float, assign_s: float, drain_s: float, beat_s: float
    ) -> None:
        self.standbys: dict[str, Standby] = {}  # with a role to come, too
        self.loads: dict[str, int] = {}  # models loaded, by scenario
        self._simulation = simulation
        self._clock, self._bus = simulation.clock, simulation.bus
        self._start_s, self._assign_s, self._drain_s, self._beat_s = start_s, assign_s, drain_s, beat_s
        self._scenarios = {one.name: one for one in simulation.spec.scenarios}
        self._numbers = count()
        self._held = Level()
        self._held.add(len(simulation.workers), self._clock.now)
        self._between: set[str] = set()  # whose process starts anew just now
        simulation.fallen.append(self._fell)

    @property
    def instances(self) -> int:
        """Count those that there are, whatever they do."""
        return self._held.count

    @property
    def instance_s(self) -> float:
        """Seconds that instances were there, of all together."""
        return self._held.read(self._clock.now)[0] / MICRO

    @property
    def free(self) -> int:
        """Count the standbys that can be told to become something."""
        return sum(one.free for one in self.standbys.values())

    # ---- who comes

    def bring(self, name: str | None = None) -> str:
        """Let a standby come: a new one, or one that was repaired, under its name."""
        name = name if name is not None else f"s{next(self._numbers)}"
        self._held.add(1, self._clock.now)
        self._wait(name)
        return name

    def serves(self, name: str) -> Worker | None:
        """Find one that works."""
        worker = self._simulation.workers.get(name)
        return worker if worker is not None and worker.up else None

    def kill(self, name: str) -> bool:
        """Let an instance die, whatever it is; False: it is down."""
        if name in self._between:
            self._between.discard(name)
            self._held.add(-1, self._clock.now)
            return True
        standby = self.standbys.pop(name, None)
        if standby is not None:
            standby.end(said=False)
            self._held.add(-1, self._clock.now)
            return True
        if self.serves(name) is None:
            return False
        self._simulation.kill(name)
        return True

    def _fell(self, worker: Worker) -> None:
        if not worker.up:
            self._held.add(-1, self._clock.now)

    # ---- orders

    def assign(self, order: Assign, answer: Answer) -> None:
        """Hear an order to become something, and answer."""
        name, place = order.instance, Place(order.scenario, order.group, order.role)
        standby, worker = self.standbys.get(name), self.serves(name)
        if worker is not None and worker.frozen:
            self._clock.after(self._assign_s, answer, AssignFailed(name, "no answer"))
            return
        if standby is not None and standby.free and place != NOWHERE:
            del self.standbys[name]
            standby.end(said=True)
            self._between.add(name)
            self._clock.after(self._start_s, self._begin, name, place)
        elif worker is not None and not worker.draining:
            self._drain(worker, place)
        else:
            self._bus.say(answer, AssignFailed(name, "it is not there, or becomes something else", certain=True))
            return
        self._bus.say(answer, AssignAccepted(name))

    def drain(self, name: str) -> None:
        """Hear an order to finish what is held, and to stop for good."""
        worker, standby = self.serves(name), self.standbys.pop(name, None)
        if standby is not None:
            standby.end(said=True)
            self._held.add(-1, self._clock.now)
        elif worker is not None and not worker.frozen and not worker.draining:
            self._drain(worker, None)

    def _drain(self, worker: Worker, place: Place | None) -> None:
        worker.draining = True
        worker.announce()
        self._look(worker, place, self._clock.now + self._drain_s)

    def _look(self, worker: Worker, place: Place | None, limit: float) -> None:
        """Stop when all is finished; what is not when the time is up, gateways try elsewhere."""
        if not worker.up:
            return
        if worker.frozen or not (worker.idle or self._clock.now >= limit):
            self._clock.after(LOOK_S, self._look, worker, place, limit)
            return
        self._simulation.stop(worker.name)
        if place is None:
            self._held.add(-1, self._clock.now)
        else:
            self._between.add(worker.name)
            self._clock.after(self._start_s, self._begin, worker.name, place)

    # ---- a new life

    def _begin(self, name: str, place: Place) -> None:
        if name not in self._between:
            return  # it died meanwhile
        self._between.discard(name)
        if place == NOWHERE:
            self._wait(name)
            return
        scenario, group = self.group(place)
        epoch = self._simulation.next_epoch()
        self.standbys[name] = loading = Standby(self._bus, name, epoch, self._beat_s, place)
        self.loads[place.scenario] = self.loads.get(place.scenario, 0) + 1
        profile = (group.decode_profile or group.profile) if place.role is Role.DECODE else group.profile
        self._clock.after(profile.load_s, self._loaded, loading, scenario, group)

    def _loaded(self, loading: Standby, scenario: ScenarioSpec, group: GroupSpec) -> None:
        if not loading.up:
            return
        loading.end(said=False)
        del self.standbys[loading.name]
        self._simulation.begin(scenario, group, loading.place.role, loading.name, loading.epoch, loading.number)

    def again(self, worker: Worker) -> None:
        """Give one whose lease ran out another: the same process under a new epoch. What it held is lost."""
        said = worker.status().number
        worker.die()
        scenario, group = self.group(Place(worker.scenario.name, worker.group, worker.role))
        self._simulation.begin(scenario, group, worker.role, worker.name, self._simulation.next_epoch(), said)

    def _wait(self, name: str) -> None:
        self.standbys[name] = Standby(self._bus, name, self._simulation.next_epoch(), self._beat_s)

    def group(self, place: Place) -> tuple[ScenarioSpec, GroupSpec]:
        """What runs there; a group that scaling made is like the scenario's first one."""
        scenario = self._scenarios[place.scenario]
        known = next((one for one in scenario.groups if one.name == place.group), None)
        first = scenario.groups[0]
        made = GroupSpec(place.group, 0, 0, first.profile, first.decode_profile, first.strategy)
        return scenario, known or made
