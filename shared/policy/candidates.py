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


class GroupPools:
    """A group's members, those of them that may be asked, and whether it takes new requests."""

    __slots__ = ("decodes", "members", "open", "prefills")

    def __init__(self) -> None:
        self.open = False
        self.members: dict[str, Worker] = {}
        self.prefills = Pool()
        self.decodes = Pool()

    def __len__(self) -> int:
        return len(self.members) + len(self.prefills) + len(self.decodes)


class ScenarioPools:
    """A scenario's groups, and the members of the open ones that may be asked."""

    __slots__ = ("decodes", "groups", "prefills", "ring", "told")

    def __init__(self) -> None:
        self.told: Mapping[str, Group] = {}  # by the newest map
        self.groups: defaultdict[str, GroupPools] = defaultdict(GroupPools)
        self.prefills = Pool()
        self.decodes = Pool()
        self.ring = Ring()  # of its prefills

    def pool(self, role: Role, group: str) -> Pool | None:
        """Find the pool of a role, in all groups or in one; None: there is no such group."""
        of = self.groups.get(group) if group else self
        if of is None:
            return None
        return of.decodes if role is Role.DECODE else of.prefills


class Candidates:
    """Each worker stands in the pool of its scenario and role, and in that of its group."""

    def __init__(self) -> None:
        self._scenarios: defaultdict[str, ScenarioPools] = defaultdict(ScenarioPools)

    def best(self, scenario: str, role: Role, group: str, exclude: Collection[str]) -> str | None:
        """The first that has room; cheap at any fleet size."""
        first = self.first(scenario, role, group, exclude)
        return None if first is None else first.instance

    def first(self, scenario: str, role: Role, group: str, exclude: Collection[str]) -> Standing | None:
        """Where the first that has room stands."""
        pool = self._pool(scenario, role, group)
        return None if pool is None else pool.first(exclude)

    def next(self, scenario: str, role: Role, group: str, exclude: Collection[str]) -> Standing | None:
        """Where the first that is not excluded stands, full ones and suspects included."""
        pool = self._pool(scenario, role, group)
        return None if pool is None else pool.next(exclude)

    def first_of(self, scenario: str, groups: Collection[str], exclude: Collection[str]) -> Standing | None:
        """Where the first prefill of several groups that has room stands; costs a look at each of them."""
        found = (self.first(scenario, Role.PREFILL, group, exclude) for group in groups)
        return min((standing for standing in found if standing is not None), default=None)

    def standing(self, scenario: str, role: Role, instance: str, group: str = "") -> Standing | None:
        """Where an instance stands among those of its scenario and role, or of a group; None: it is no candidate."""
        pool = self._pool(scenario, role, group)
        return None if pool is None else pool.standing(instance)

    def exists(self, scenario: str, role: Role, group: str) -> bool:
        """Whether there is any."""
        pool = self._pool(scenario, role, group)
        return pool is not None and len(pool) > 0

    def groups(self, scenario: str) -> Mapping[str, Group]:
        """What the newest map says of a scenario's groups, by name; another object for each map."""
        pools = self._scenarios.get(scenario)
        return {} if pools is None else pools.told

    def ring(self, scenario: str) -> Ring:
        """Every observer's order of a scenario's prefills for a key."""
        return self._scenarios[scenario].ring

    def members(self, scenario: str) -> list[Worker]:
        """Every member of a scenario's groups, in the same order each time."""
        groups = [pools.members for pools in self._scenarios[scenario].groups.values()]
        return [members[instance] for members in groups for instance in sorted(members)]

    def know(self, message: ScenarioMap) -> None:
        """Take in what a map says of its groups; `join` and `leave` follow for their members."""
        pools = self._scenarios[message.scenario]
        pools.told = {group.name: group for group in message.groups}
        for name, group in pools.told.items():
            pools.groups[name].open = group.phase is GroupPhase.OPEN
        for name in pools.groups.keys() - pools.told.keys():
            pools.groups[name].open = False
            if not len(pools.groups[name]):
                del pools.groups[name]

    def join(self, worker: Worker) -> None:
        """Note that the map lists it; `place` follows."""
        pools = self._scenarios[worker.scenario]
        pools.groups[worker.group].members[worker.instance] = worker
        if worker.role is Role.PREFILL:
            pools.ring.add(worker.instance)

    def leave(self, worker: Worker) -> None:
        """Note that the map does not list it any more."""
        worker.member = None
        if (pools := self._scenarios.get(worker.scenario)) is not None:
            if (group := pools.groups.get(worker.group)) is not None:
                group.members.pop(worker.instance, None)
            pools.ring.drop(worker.instance)
        self.place(worker)

    def place(self, worker: Worker) -> None:
        """Bring the pools up to date with the worker."""
        everybody = self._scenarios.get(worker.scenario)
        group = everybody.groups.get(worker.group) if everybody is not None else None
        if everybody is None or group is None:  # it is in no map
            return
        standing = worker.standing
        if worker.role is not Role.DECODE:
            if not (group.open and len(group.decodes)):
                standing = None
            everybody.prefills.put(worker.instance, standing)
            group.prefills.put(worker.instance, standing)
            return
        served = len(group.decodes)
        everybody.decodes.put(worker.instance, standing if group.open else None)
        group.decodes.put(worker.instance, standing)
        if (served > 0) is not (len(group.decodes) > 0):
            for member in group.members.values():
                if member.role is Role.PREFILL:
                    self.place(member)

    def _pool(self, scenario: str, role: Role, group: str) -> Pool | None:
        pools = self._scenarios.get(scenario)
        return None if pools is None else pools.pool(role, group)
