"""Lets faults happen to a simulated fleet: deaths and their repair, standstills, slowness.

Owns what a fault means for whoever is hit: one that is down cannot be hit again, and what only standing still or
slowness hurts must be serving. An instance that nobody reaches stands still, as far as others can tell. Links are the
network's matter and are not hurt here.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from simulator.cluster.decode import Decode
from simulator.cluster.prefill import Prefill
from simulator.cluster.simulation import Simulation
from simulator.cluster.worker import Worker
from simulator.faults.events import Cut, Died, Fault, Froze, Slowed


class Keeper(Protocol):
    """Who keeps the fleet: the monitor, or what it is compared with."""

    def kill(self, name: str) -> bool:
        """Let an instance die; False: it is down already."""
        ...

    def repair(self, name: str) -> None:
        """Let it come back."""
        ...


class Hurting:
    """Takes faults in the order of time. `touched` hears of whoever becomes slower or well again."""

    def __init__(
        self, simulation: Simulation, keeper: Keeper, faults: Iterator[Fault], touched: Callable[[Worker], None]
    ) -> None:
        self.deaths = self.others = 0  # that hit somebody
        self._simulation = simulation
        self._keeper = keeper
        self._faults = faults
        self._touched = touched
        self._next()

    def _next(self) -> None:
        fault = next(self._faults, None)
        if fault is not None:
            self._simulation.clock.at(fault.at, self._strike, fault)

    def _strike(self, fault: Fault) -> None:
        self._next()
        clock = self._simulation.clock
        if isinstance(fault, Died):
            if self._keeper.kill(fault.instance):
                self.deaths += 1
                clock.at(fault.until, self._keeper.repair, fault.instance)
            return
        worker = self._simulation.workers.get(fault.instance)
        if worker is None or not worker.up or worker.frozen or worker.draining:
            return
        if isinstance(fault, Froze | Cut):
            self.others += 1
            self._simulation.freeze(fault.instance, fault.until - fault.at)
        elif isinstance(fault, Slowed):
            self.others += 1
            self._pace(worker, fault.factor)
            clock.at(fault.until, self._pace, worker, 1.0)

    def _pace(self, worker: Worker, slower: float) -> None:
        if isinstance(worker, Decode):
            worker.batch.slower = slower
        elif isinstance(worker, Prefill):
            worker.slower = slower
        self._touched(worker)
