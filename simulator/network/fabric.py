"""Racks under spines: transfers share links, and paths that are picked blindly collide.

A flow gets an equal share of its narrowest link. Max-min fairness would also give it what flows that are held up
elsewhere leave unused; so this is never faster than max-min, and a start or an end touches only the flows that share a
link with it. P/D-Serve 1.12: path conflicts cost up to hundreds of milliseconds, diverse paths avoid them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from simulator.clock import Clock
from simulator.measures.distribution import Distribution
from simulator.network.flow import Flow, Link
from simulator.network.straight import EXCHANGE_S


@dataclass(frozen=True, slots=True)
class FabricSpec:
    """Capacities are per direction. Each rack has one uplink to each spine."""

    per_rack: int = 8
    spines: int = 4
    nic_bytes_per_s: float = 25e9
    uplink_bytes_per_s: float = 25e9
    latency_s: float = EXCHANGE_S
    paths: Literal["ecmp", "diverse"] = "diverse"
    seed: int = 0


class Fabric:
    """A Network."""

    def __init__(self, clock: Clock, spec: FabricSpec) -> None:
        self._clock, self._spec = clock, spec
        self._random = Random(f"{spec.seed}-paths")
        self._racks: dict[str, int] = {}
        self._links: dict[str, Link] = {}
        self.nbytes = 0
        self.times = Distribution()  # seconds of each transfer
        self.conflicts = 0  # flows that shared an uplink or downlink although another path was free
        self.rated = 0  # rates that were computed: the cost of all this

    def place(self, instance: str) -> None:
        """See Network. Racks are filled in the order of coming."""
        self._racks.setdefault(instance, len(self._racks) // self._spec.per_rack)

    def send(self, source: str, target: str, nbytes: int, done: Callable[[], None]) -> None:
        """See Network. Raises KeyError where one of them was never placed."""
        racks = self._racks[source], self._racks[target]
        self._clock.after(self._spec.latency_s, self._start, source, target, racks, nbytes, self._clock.now, done)

    @property
    def busiest(self) -> tuple[str, int]:
        """The link that carried the most bytes, and how many."""
        carried = Counter({link.name: link.nbytes for link in self._links.values()})
        return carried.most_common(1)[0] if carried else ("", 0)

    def _link(self, name: str, bytes_per_s: float) -> Link:
        return self._links.setdefault(name, Link(name, bytes_per_s))

    def _start(  # noqa: PLR0917
        self, source: str, target: str, racks: tuple[int, int], nbytes: int, began: float, done: Callable[[], None]
    ) -> None:
        nic = self._spec.nic_bytes_per_s
        links = [self._link(f"{source} sends", nic), self._link(f"{target} receives", nic)]
        if racks[0] != racks[1]:
            links += self._path(*racks)
        flow = Flow(tuple(links), nbytes, began, done)
        flow.since = self._clock.now
        self.nbytes += nbytes
        for link in links:
            link.flows[flow] = None
            link.nbytes += nbytes
        self._rate(flow.links)

    def _path(self, source: int, target: int) -> tuple[Link, Link]:
        width = self._spec.uplink_bytes_per_s
        ways = [
            (self._link(f"rack {source} up {n}", width), self._link(f"rack {target} down {n}", width))
            for n in range(self._spec.spines)
        ]
        loads = [max(len(up.flows), len(down.flows)) for up, down in ways]
        least = min(loads)
        # A seeded draw per flow is what a hash of its ports comes to: every flow has new ones.
        picked = self._random.randrange(len(ways)) if self._spec.paths == "ecmp" else loads.index(least)
        self.conflicts += loads[picked] > 0 and least == 0
        return ways[picked]

    def _rate(self, links: tuple[Link, ...]) -> None:
        now = self._clock.now
        for flow in dict.fromkeys(flow for link in links for flow in link.flows):
            self.rated += 1
            flow.settle(now)
            flow.rate = flow.share()
            end = now + flow.left / flow.rate
            if end < flow.due:  # one that became slower keeps its completion, which will look and set another
                flow.due = end
                self._clock.at(end, self._look, flow, end)

    def _look(self, flow: Flow, due: float) -> None:
        if due != flow.due:
            return  # an earlier completion took its place
        now = self._clock.now
        end = flow.since + flow.left / flow.rate
        if end > now + 1e-12 * max(1.0, now):
            flow.due = end
            self._clock.at(end, self._look, flow, end)
            return
        flow.due = -1.0
        for link in flow.links:
            del link.flows[flow]
        self._rate(flow.links)
        self.times.add(now + self._spec.latency_s - flow.began)
        self._clock.after(self._spec.latency_s, flow.done)
