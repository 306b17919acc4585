"""Who may be asked, by scenario, role and group: the pools, and which groups can serve at all.

Owns the pools and the lists of members, and keeps them up to date with the workers that it is shown. A prefill also
needs a decode in its group, or its slot would be held in vain.
"""

from collections import defaultdict
from collections.abc import Collection

from shared.messages import Role
from shared.policy.pool import Pool
from shared.policy.worker import Worker


class Candidates:
    """Each worker stands in the pool of its scenario and role, and in that of its group."""

    def __init__(self) -> None:
        self._pools: defaultdict[tuple[str, Role, str], Pool] = defaultdict(Pool)
        self._members: defaultdict[tuple[str, str], dict[str, Worker]] = defaultdict(dict)

    def best(self, scenario: str, role: Role, group: str, exclude: Collection[str]) -> str | None:
        """The first that has room; cheap at any fleet size."""
        return self._pools[scenario, role, group].best(exclude)

    def ranked(self, scenario: str, role: Role, group: str) -> list[str]:
        """All, in order; costs a sort."""
        return self._pools[scenario, role, group].ranked()

    def exists(self, scenario: str, role: Role, group: str) -> bool:
        """Whether there is any."""
        return len(self._pools[scenario, role, group]) > 0

    def members(self, scenario: str) -> list[Worker]:
        """Every member of a scenario's groups, in the same order each time."""
        groups = [members for (name, _), members in self._members.items() if name == scenario]
        return [members[instance] for members in groups for instance in sorted(members)]

    def join(self, worker: Worker) -> None:
        """Note that the map lists it; `place` follows."""
        self._members[worker.scenario, worker.group][worker.instance] = worker

    def leave(self, worker: Worker) -> None:
        """Note that the map does not list it any more."""
        worker.member = None
        self._members[worker.scenario, worker.group].pop(worker.instance, None)
        self.place(worker)

    def place(self, worker: Worker) -> None:
        """Bring the pools up to date with the worker."""
        scenario, group = worker.scenario, worker.group
        served = self.exists(scenario, Role.DECODE, group)
        candidate = worker.routable and (served or worker.role is Role.DECODE)
        for pool in (self._pools[scenario, worker.role, ""], self._pools[scenario, worker.role, group]):
            if candidate:
                pool.put(worker.standing)
            else:
                pool.drop(worker.instance)
        if worker.role is Role.DECODE and served != self.exists(scenario, Role.DECODE, group):
            for member in self._members[scenario, group].values():
                if member.role is Role.PREFILL:
                    self.place(member)
