"""What prefills say of their ways to the decodes of their group: pairs are verified some time after the map names them.

Owns whom each prefill has told of. A pair is verified where both live when it is tried; else it is tried again.
"""

from collections.abc import Callable
from typing import Final

from shared.messages import Epoch, Group, Link, Links, ScenarioMap
from simulator.cluster.simulation import Simulation
from simulator.cluster.worker import Worker

AGAIN_S: Final = 1.0

Decodes = tuple[tuple[str, Epoch], ...]


class Verifying:
    """Of all groups. `tell` hears the links."""

    def __init__(self, simulation: Simulation, connect_s: float, tell: Callable[[Links], None]) -> None:
        self._simulation = simulation
        self._connect_s = connect_s
        self._tell = tell
        self._groups: dict[tuple[str, str], Group] = {}
        self._tries: dict[tuple[str, Epoch], Decodes] = {}  # by prefill: the decodes that it tries, or has told of

    def see(self, scenario_map: ScenarioMap) -> None:
        """Look at the groups that have changed."""
        for group in scenario_map.groups:
            key = (scenario_map.scenario, group.name)
            before = self._groups.get(key)
            if before is not None and before.prefill == group.prefill and before.decode == group.decode:
                continue
            self._groups[key] = group
            decodes = tuple((one.instance, one.epoch) for one in group.decode)
            mine = {(one.instance, one.epoch) for one in group.prefill}
            for gone in before.prefill if before is not None else ():
                if (gone.instance, gone.epoch) not in mine:
                    self._tries.pop((gone.instance, gone.epoch), None)
            for one in group.prefill:
                prefill = (one.instance, one.epoch)
                new = set(decodes) - set(self._tries.get(prefill, ()))
                self._tries[prefill] = decodes
                if new and not (one.joined and all(peer.joined for peer in group.decode)):
                    self._simulation.clock.after(self._connect_s, self._try, prefill, decodes)

    def _try(self, prefill: tuple[str, Epoch], decodes: Decodes) -> None:
        if self._tries.get(prefill) != decodes:
            decodes = self._tries.get(prefill, ())
        speaker = self._there(*prefill)
        if not decodes or speaker is None:
            return
        links = []
        for name, epoch in decodes:
            well = self._there(name, epoch) is not None
            links.append(Link(name, epoch, well, "" if well else "no answer"))
        self._tell(Links(*prefill, links))
        if not all(link.verified for link in links):
            self._simulation.clock.after(AGAIN_S, self._try, prefill, decodes)

    def _there(self, name: str, epoch: Epoch) -> Worker | None:
        """Find that life of a worker, if it answers."""
        worker = self._simulation.workers.get(name)
        return worker if worker is not None and worker.up and not worker.frozen and worker.epoch == epoch else None
