"""The maps of the scenarios as the monitor decides them: who is in which group, in which version.

Owns membership and phases. Knows nothing of health; who comes, joins or leaves is decided elsewhere.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shared.messages import Epoch, Group, GroupPhase, Member, Role, ScenarioMap
from shared.policy.fleet.events import AS_CONFIGURED, Cause, Place
from shared.policy.fleet.plans import ROLES, GroupKey, Plans


@dataclass(slots=True)
class Seat:
    """A member's place in its group."""

    epoch: Epoch
    joined: bool = False  # every pair that it is part of was verified


class Groups:
    """Members by place. A change marks its scenario; `publish` makes the next version of each marked map.

    It also touches its place: `touched` are those that the deciders have to look at again.
    """

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._seats: dict[Place, dict[str, Seat]] = {}
        self._joined: Counter[Place] = Counter()
        self._places: dict[str, Place] = {}
        self._phases: dict[GroupKey, GroupPhase] = {}
        self._maps: dict[str, ScenarioMap] = {}
        self._changed: dict[str, Cause] = {}
        self.touched: dict[Place, None] = {}

    def map(self, scenario: str) -> ScenarioMap | None:
        """Return the map as published or loaded last."""
        return self._maps.get(scenario)

    def place(self, instance: str) -> Place | None:
        """Return where it is a member."""
        return self._places.get(instance)

    def seats(self, place: Place) -> Mapping[str, Seat]:
        """Return the members of a place, the first to come first."""
        return self._seats.get(place, {})

    def members(self) -> Iterator[tuple[str, Epoch]]:
        """Iterate over all members; they must not change meanwhile."""
        for seats in self._seats.values():
            for instance, seat in seats.items():
                yield instance, seat.epoch

    @property
    def closes(self) -> bool:
        """Whether any group closes."""
        return self._plans.closes

    def of(self, scenario: str) -> Iterator[tuple[Place, Member]]:
        """Iterate over the members of a scenario; they must not change meanwhile."""
        for key in self.group_keys(scenario):
            for place in _places(key):
                for member in self._listed(place):
                    yield place, member

    def group_keys(self, scenario: str | None = None) -> list[GroupKey]:
        """List the groups, of a scenario or all: as planned, then those that close."""
        keys: list[GroupKey] = []
        for name in self._plans.scenarios() if scenario is None else [scenario]:
            plan = self._plans.plan(name)
            keys += [(name, group.name) for group in (() if plan is None else plan.groups)]
            keys += self._plans.closing(name)
        return keys

    def missing(self, place: Place) -> int:
        """Count the members below the wanted size; negative above it."""
        return self._plans.wanted(place) - len(self.seats(place))

    def joined(self, place: Place) -> int:
        """Count the members that have joined."""
        return self._joined[place]

    def unjoined(self, key: GroupKey) -> int:
        """Count the members of a group that have not joined yet."""
        return sum(len(self.seats(place)) - self._joined[place] for place in _places(key))

    def occupied(self, key: GroupKey) -> bool:
        """Whether it has members."""
        return any(self.seats(place) for place in _places(key))

    def phase(self, key: GroupKey) -> GroupPhase:
        """Return how far a group is."""
        return self._phases.get(key, GroupPhase.COLLECT)

    def advance(self, key: GroupKey, phase: GroupPhase) -> None:
        """Note how far a group is now."""
        if self._phases.get(key) is not phase:
            self._phases[key] = phase
            self.mark(key[0], Cause.PHASE)
            self.touch(key)

    def vanish(self, key: GroupKey) -> None:
        """Strike a group off that closed and is empty."""
        self._plans.vanished(key)
        self._phases.pop(key, None)
        for place in _places(key):
            self._seats.pop(place, None)
            self._joined.pop(place, None)
        self.mark(key[0], Cause.PHASE)

    def enter(self, instance: str, epoch: Epoch, place: Place, cause: Cause, *, joined: bool = False) -> None:
        """Enter a member, or its new epoch."""
        seat = self.seats(place).get(instance)
        if seat is not None and seat.epoch == epoch:
            return
        self.leave(instance, cause)
        self._seats.setdefault(place, {})[instance] = Seat(epoch, joined)
        self._joined[place] += joined
        self._places[instance] = place
        self._mark(place, cause)

    def join(self, instance: str) -> None:
        """Note that all its pairs are verified."""
        place = self._places[instance]
        seat = self._seats[place][instance]
        if not seat.joined:
            seat.joined = True
            self._joined[place] += 1
            self._mark(place, Cause.JOINED)

    def leave(self, instance: str, cause: Cause) -> Place | None:
        """Strike a member off; where it was."""
        place = self._places.pop(instance, None)
        if place is not None:
            self._joined[place] -= self._seats[place].pop(instance).joined
            self._mark(place, cause)
        return place

    def load(self, scenario_map: ScenarioMap) -> bool:
        """Take over a map from another leader unless ours is later."""
        scenario, ours = scenario_map.scenario, self._maps.get(scenario_map.scenario)
        if ours is not None and (scenario_map.epoch, scenario_map.version) <= (ours.epoch, ours.version):
            return False
        for instance in [one for one, place in self._places.items() if place.scenario == scenario]:
            self.leave(instance, Cause.LED)
        for key in [key for key in self._phases if key[0] == scenario]:
            del self._phases[key]
        self._plans.load(scenario_map)
        for group in scenario_map.groups:
            self._phases[scenario, group.name] = group.phase
            for role, members in zip(ROLES, (group.prefill, group.decode), strict=True):
                for one in members:
                    place = Place(scenario, group.name, role)
                    self.enter(one.instance, one.epoch, place, Cause.LED, joined=one.joined)
        self._maps[scenario] = scenario_map
        self._changed.pop(scenario, None)
        return True

    def touch(self, key: GroupKey) -> None:
        """Have a group looked at."""
        self.touched.update(dict.fromkeys(_places(key)))

    def mark(self, scenario: str, cause: Cause) -> None:
        """Have a map published again."""
        self._changed.setdefault(scenario, cause)

    def mark_all(self, cause: Cause) -> None:
        """Have every map published again, also that of a scenario without members."""
        for scenario in dict.fromkeys([*self._maps, *self._plans.scenarios()]):
            self.mark(scenario, cause)

    def publish(self, leader: Epoch) -> list[tuple[ScenarioMap, Cause]]:
        """Make the next version of each map that has changed."""
        changed, self._changed = self._changed, {}
        maps: list[tuple[ScenarioMap, Cause]] = []
        for scenario, cause in changed.items():
            before, plan = self._maps.get(scenario), self._plans.plan(scenario)
            groups = [self._group(key) for key in self.group_keys(scenario)]
            self._maps[scenario] = ScenarioMap(
                scenario,
                1 if before is None else before.version + 1,
                leader,
                groups,
                list(plan.revisions if plan and plan.revisions else [AS_CONFIGURED]),
                0 if plan is None else plan.target,
            )
            maps.append((self._maps[scenario], cause))
        return maps

    def _group(self, key: GroupKey) -> Group:
        group, (prefill, decode) = self._plans.runs(key), map(self._listed, _places(key))
        return Group(
            group.name, prefill, decode, self.phase(key),
            group.prefill, group.decode, group.revision, group.strategy, group.canary,
        )  # fmt: skip

    def _listed(self, place: Place) -> list[Member]:
        return [Member(instance, seat.epoch, seat.joined) for instance, seat in sorted(self.seats(place).items())]

    def _mark(self, place: Place, cause: Cause) -> None:
        self.mark(place.scenario, cause)
        self.touched[place] = None


def _places(key: GroupKey) -> tuple[Place, Place]:
    return Place(*key, Role.PREFILL), Place(*key, Role.DECODE)
