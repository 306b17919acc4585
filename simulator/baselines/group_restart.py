"""Group restart, for comparison: who loses an instance tears its whole group down, and loads it anew.

This is what a group does whose members know each other from the set-up only. It waits for as many as it had: one from
the standbys, or, where there is none, the repair. Requests that it held are lost; `LOST` are the dispatcher's rules
under which they stay so. Not how Baton works.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from shared.messages import Group, Member, Role
from shared.policy.dispatch_events import DispatchRules
from simulator.cluster.simulation import Simulation
from simulator.cluster.spec import GroupSpec, ScenarioSpec
from simulator.cluster.worker import Worker

LOST: Final = DispatchRules(attempts=1, losses=1)
"""An attempt that fails is not repeated, and a stream that breaks off is not continued."""


@dataclass(slots=True)
class _Site:
    """A group, and who belongs to it."""

    scenario: ScenarioSpec
    group: GroupSpec
    members: dict[str, Role]
    missing: list[Role] = field(default_factory=list)
    life: int = 0  # raised by whatever makes a load that is under way worthless
    serves: bool = True


class GroupRestart:
    """In the monitor's place. Make it before the simulation runs. `detect_s`: from a fault to its being noticed."""

    def __init__(
        self, simulation: Simulation, standbys: int, *, detect_s: float, start_s: float = 1.0, connect_s: float = 0.1
    ) -> None:
        self.restarts = 0
        self._simulation, self._clock = simulation, simulation.clock
        self._detect_s, self._wait_s = detect_s, start_s + connect_s
        self._spares = [f"s{number}" for number in range(standbys)]
        self._sites: dict[str, _Site] = {}  # by instance
        self._waiting: dict[int, _Site] = {}  # for an instance, by identity; the first in line first
        for scenario in simulation.spec.scenarios:
            for group in scenario.groups:
                self._take(scenario, group, simulation.workers.values())
        simulation.fallen.append(self._fell)

    def _take(self, scenario: ScenarioSpec, group: GroupSpec, workers: Iterable[Worker]) -> None:
        members = {one.name: one.role for one in workers if (one.scenario, one.group) == (scenario, group.name)}
        site = _Site(scenario, group, members)
        self._sites |= dict.fromkeys(members, site)

    def kill(self, name: str) -> bool:
        """Let an instance die, whatever it is just now; False: it is down already."""
        if name in self._spares:
            self._spares.remove(name)
            return True
        site = self._sites.get(name)
        if site is None:
            return False
        worker = self._simulation.workers.get(name)
        if worker is not None and worker.up:
            self._simulation.kill(name)
        else:  # while its group loads
            self._clock.after(self._detect_s, self._tear, site)
        site.missing.append(site.members.pop(name))
        del self._sites[name]
        return True

    def repair(self, name: str) -> None:
        """Let an instance be there again."""
        self._spares.append(name)
        for key in list(self._waiting):
            if not self._spares:
                return
            self._complete(self._waiting.pop(key))

    def _fell(self, worker: Worker) -> None:
        site = self._sites.get(worker.name)
        if site is not None:
            self._clock.after(self._detect_s, self._noticed, site, worker)

    def _noticed(self, site: _Site, worker: Worker) -> None:
        if site.serves and (not worker.up or worker.frozen):
            self._tear(site)

    def _tear(self, site: _Site) -> None:
        """Stop the whole group."""
        site.life += 1
        self.restarts += site.serves
        site.serves = False
        self._publish(site, None)
        for name in site.members:
            worker = self._simulation.workers.get(name)
            if worker is not None and worker.up:
                worker.frozen = False  # it is ended from outside, and that is said by whoever ends it
                self._simulation.stop(name)
        self._complete(site)

    def _complete(self, site: _Site) -> None:
        """Load the group, if it has as many instances as it had."""
        while site.missing and self._spares:
            name = self._spares.pop(0)
            site.members[name] = site.missing.pop(0)
            self._sites[name] = site
        if site.missing:
            self._waiting[id(site)] = site
        else:
            site.life += 1
            self._clock.after(site.group.profile.load_s + self._wait_s, self._loaded, site, site.life)

    def _loaded(self, site: _Site, life: int) -> None:
        if life != site.life or site.missing:
            return
        begun = [
            self._simulation.begin(site.scenario, site.group, role, name, self._simulation.next_epoch())
            for name, role in site.members.items()
        ]
        prefills, decodes = (
            [Member(one.name, one.epoch) for one in begun if one.role is role] for role in (Role.PREFILL, Role.DECODE)
        )
        site.serves = True
        self._publish(site, Group(site.group.name, prefills, decodes, prefills=len(prefills), decodes=len(decodes)))

    def _publish(self, site: _Site, group: Group | None) -> None:
        before = self._simulation.map(site.scenario.name)
        groups = [one for one in before.groups if one.name != site.group.name]
        groups += [] if group is None else [group]
        self._simulation.publish(structs.replace(before, version=before.version + 1, groups=groups))
