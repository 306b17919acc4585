"""Who may be asked, by scenario, role and group: the pools, and which groups can serve at all.

Owns the pools, the lists of members and what the map says of their groups, and keeps them up to date with the workers
that it is shown. A prefill is a candidate in an open group that has a decode, or its slot would be held in vain. A
decode is one for the prefills of its group as long as it is a member, and for the scenario while its group is open.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

from shared.messages import Group, GroupPhase, Role, ScenarioMap
from shared.policy.pool import Pool, Standing
from shared.policy.ring import Ring
from shared.policy.worker import Worker


class Candidates:
    """Each worker stands in the pool of its scenario and role, and in that of its group."""

    def __init__(self) -> None:
        self._pools: defaultdict[tuple[str, Role, str], Pool] = defaultdict(Pool)
        self._members: defaultdict[tuple[str, str], dict[str, Worker]] = defaultdict(dict)
        self._groups: dict[str, dict[str, Group]] = {}  # by scenario and name
        self._rings: defaultdict[str, Ring] = defaultdict(Ring)  # of a scenario's prefills

    def best(self, scenario: str, role: Role, group: str, exclude: Collection[str]) -> str | None:
        """The first that has room; cheap at any fleet size."""
        first = self.first(scenario, role, group, exclude)
        return None if first is None else first.instance

    def first(self, scenario: str, role: Role, group: str, exclude: Collection[str]) -> Standing | None:
        """Where the first that has room stands."""
        return self._pools[scenario, role, group].first(exclude)

    def next(self, scenario: str, role: Role, group: str, exclude: Collection[str]) -> Standing | None:
        """Where the first that is not excluded stands, full ones and suspects included."""
        return self._pools[scenario, role, group].next(exclude)

    def first_of(self, scenario: str, groups: Collection[str], exclude: Collection[str]) -> Standing | None:
        """Where the first prefill of several groups that has room stands; costs a look at each of them."""
        found = (self.first(scenario, Role.PREFILL, group, exclude) for group in groups)
        return min((standing for standing in found if standing is not None), default=None)

    def standing(self, scenario: str, role: Role, instance: str, group: str = "") -> Standing | None:
        """Where an instance stands among those of its scenario and role, or of a group; None: it is no candidate."""
        return self._pools[scenario, role, group].standing(instance)

    def exists(self, scenario: str, role: Role, group: str) -> bool:
        """Whether there is any."""
        return len(self._pools[scenario, role, group]) > 0

    def groups(self, scenario: str) -> Mapping[str, Group]:
        """What the newest map says of a scenario's groups, by name; another object for each map."""
        return self._groups.get(scenario, {})

    def ring(self, scenario: str) -> Ring:
        """Every observer's order of a scenario's prefills for a key."""
        return self._rings[scenario]

    def members(self, scenario: str) -> list[Worker]:
        """Every member of a scenario's groups, in the same order each time."""
        groups = [members for (name, _), members in self._members.items() if name == scenario]
        return [members[instance] for members in groups for instance in sorted(members)]

    def know(self, message: ScenarioMap) -> None:
        """Take in what a map says of its groups; `join` and `leave` follow for their members."""
        scenario = message.scenario
        groups = self._groups[scenario] = {group.name: group for group in message.groups}
        for key in [key for key in self._pools if key[0] == scenario and key[2] and key[2] not in groups]:
            if not len(self._pools[key]):
                del self._pools[key]

    def join(self, worker: Worker) -> None:
        """Note that the map lists it; `place` follows."""
        self._members[worker.scenario, worker.group][worker.instance] = worker
        if worker.role is Role.PREFILL:
            self._rings[worker.scenario].add(worker.instance)

    def leave(self, worker: Worker) -> None:
        """Note that the map does not list it any more."""
        worker.member = None
        place = worker.scenario, worker.group
        if (members := self._members.get(place)) is not None:
            members.pop(worker.instance, None)
            if not members:
                del self._members[place]
        if (ring := self._rings.get(worker.scenario)) is not None:
            ring.drop(worker.instance)
        self.place(worker)

    def place(self, worker: Worker) -> None:
        """Bring the pools up to date with the worker."""
        scenario, group, role = worker.scenario, worker.group, worker.role
        is_decode, routable = role is Role.DECODE, worker.routable
        served = self.exists(scenario, Role.DECODE, group)
        entrance = routable and (served or is_decode) and self._open(scenario, group)
        within = routable if is_decode else entrance
        standing = worker.standing if within else None  # who is an entrance is within, too
        for name, candidate in (("", entrance), (group, within)):
            if candidate and standing is not None:
                self._pools[scenario, role, name].put(standing)
            else:
                self._pools[scenario, role, name].drop(worker.instance)
        if is_decode and served != self.exists(scenario, Role.DECODE, group):
            for member in self._members.get((scenario, group), {}).values():
                if member.role is Role.PREFILL:
                    self.place(member)

    def _open(self, scenario: str, group: str) -> bool:
        known = self.groups(scenario).get(group)
        return known is not None and known.phase is GroupPhase.OPEN
