"""The maps of the scenarios as the monitor decides them: who is in which group, in which version.

Owns membership and the wanted sizes. Knows nothing of health; who joins or leaves is decided elsewhere.
"""

from collections.abc import Iterator, Mapping

from shared.messages import Epoch, Group, Member, Role, ScenarioMap
from shared.policy.fleet_events import Cause, Place

ROLES = (Role.PREFILL, Role.DECODE)


class Groups:
    """Members by place. A change marks its scenario; `publish` makes the next version of each marked map."""

    def __init__(self, wanted: Mapping[Place, int]) -> None:
        self._configured = frozenset(wanted)
        self._wanted = dict(wanted)
        self._members: dict[Place, dict[str, Epoch]] = {place: {} for place in wanted}
        self._places: dict[str, Place] = {}
        self._maps: dict[str, ScenarioMap] = {}
        self._changed: dict[str, Cause] = {}

    def map(self, scenario: str) -> ScenarioMap | None:
        """Return the map as published or loaded last."""
        return self._maps.get(scenario)

    def place(self, instance: str) -> Place | None:
        """Return where it is a member."""
        return self._places.get(instance)

    def members(self) -> Iterator[tuple[str, Epoch]]:
        """Iterate over all members; they must not change meanwhile."""
        for members in self._members.values():
            yield from members.items()

    def places(self) -> list[Place]:
        """List the places that have members or should have."""
        return [place for place in self._members if self._members[place] or self._wanted.get(place)]

    def missing(self, place: Place) -> int:
        """Count the members below the wanted size; negative above it."""
        return self._wanted.get(place, 0) - len(self._members.get(place, ()))

    def join(self, instance: str, epoch: Epoch, place: Place, cause: Cause) -> None:
        """Enter a member, or its new epoch. A group nobody configured is to stay as large as it has ever been."""
        if self._places.get(instance) == place and self._members[place][instance] == epoch:
            return
        self.leave(instance, cause)
        members = self._members.setdefault(place, {})
        members[instance] = epoch
        self._places[instance] = place
        self._mark(place.scenario, cause)
        if place not in self._configured:
            self._wanted[place] = max(self._wanted.get(place, 0), len(members))

    def leave(self, instance: str, cause: Cause) -> Place | None:
        """Strike a member off; where it was."""
        place = self._places.pop(instance, None)
        if place is not None:
            del self._members[place][instance]
            self._mark(place.scenario, cause)
        return place

    def load(self, scenario_map: ScenarioMap) -> bool:
        """Take over a map from another leader unless ours is later."""
        scenario, ours = scenario_map.scenario, self._maps.get(scenario_map.scenario)
        if ours is not None and (scenario_map.epoch, scenario_map.version) <= (ours.epoch, ours.version):
            return False
        for instance in [one for one, place in self._places.items() if place.scenario == scenario]:
            self.leave(instance, Cause.LED)
        for group in scenario_map.groups:
            for role, members in ((Role.PREFILL, group.prefill), (Role.DECODE, group.decode)):
                for member in members:
                    self.join(member.instance, member.epoch, Place(scenario, group.name, role), Cause.LED)
        self._maps[scenario] = scenario_map
        self._changed.pop(scenario, None)
        return True

    def mark_all(self, cause: Cause) -> None:
        """Have every map published again, also that of a scenario without members."""
        for scenario in dict.fromkeys([*self._maps, *(place.scenario for place in self._members)]):
            self._changed.setdefault(scenario, cause)

    def publish(self, leader: Epoch) -> list[tuple[ScenarioMap, Cause]]:
        """Make the next version of each map that has changed."""
        changed, self._changed = self._changed, {}
        maps: list[tuple[ScenarioMap, Cause]] = []
        for scenario, cause in changed.items():
            before = self._maps.get(scenario)
            version = 1 if before is None else before.version + 1
            self._maps[scenario] = ScenarioMap(scenario, version, leader, self._groups(scenario))
            maps.append((self._maps[scenario], cause))
        return maps

    def _groups(self, scenario: str) -> list[Group]:
        names = sorted({place.group for place in self.places() if place.scenario == scenario})
        return [Group(name, *self._lists(scenario, name)) for name in names]

    def _lists(self, scenario: str, group: str) -> tuple[list[Member], list[Member]]:
        prefill, decode = (self._listed(Place(scenario, group, role)) for role in ROLES)
        return prefill, decode

    def _listed(self, place: Place) -> list[Member]:
        return [Member(instance, epoch) for instance, epoch in sorted(self._members.get(place, {}).items())]

    def _mark(self, scenario: str, cause: Cause) -> None:
        self._changed.setdefault(scenario, cause)
