"""The regular look at how well an instance's device and node are: the engine's own probe, and the node's fault file.

Owns the looks, in a thread and within a deadline, and what is thought meanwhile; the instance tells the fleet. What
follows from bad health is decided by the monitor, but for one thing: who has failed takes nothing new.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Final

from prometheus_client import Gauge

from shared.engine import Probed
from shared.errors import MalformedMessage
from shared.fault_file import LONGEST_TEXT, SEVERITY, concerning, read, worst
from shared.instance import Instance
from shared.messages import Health

EVERY_S: Final = 2.0
PATIENCE_S: Final = 10.0
"""For one look. A device that does not even answer questions is not well."""

log = logging.getLogger(__name__)


class FaultWatch:
    """The fault file over time: what cannot be understood leaves the last word standing."""

    def __init__(self, path: str, devices: frozenset[str]) -> None:
        self._path = Path(path) if path else None
        self._devices = devices
        self._last: tuple[Health, str] = (Health.OK, "")
        self._complaint = ""

    @property
    def watches(self) -> bool:
        """Whether there is a file to look for."""
        return self._path is not None

    def look(self) -> tuple[Health, str]:
        """Read the file anew. A file that is not there says that all is well. Blocks."""
        if self._path is None:
            return self._last
        try:
            data = read(self._path)
            self._last = (Health.OK, "") if data is None else concerning(data, self._devices)
        except (OSError, MalformedMessage) as error:
            if str(error) != self._complaint:
                log.warning("the fault file cannot be used", extra={"path": str(self._path), "error": str(error)})
            self._complaint = str(error)
        else:
            self._complaint = ""
        return self._last


class Checkup:
    """Of one instance. `run` is a task of its owner."""

    def __init__(self, instance: Instance, probed: Probed | None = None, *, every_s: float = EVERY_S) -> None:
        self._instance = instance
        self._probed = probed
        self._every_s = every_s
        devices = frozenset[str]() if probed is None else probed.devices
        self._faults = FaultWatch(instance.config.instance.fault_file, devices)
        self._looking: Future[tuple[Health, str]] | None = None
        gauge = Gauge("baton_instance_health", "0 ok, 1 degraded, 2 failed", registry=instance.telemetry.registry)
        gauge.set_function(lambda: float(SEVERITY.index(instance.health)))

    async def run(self) -> None:
        """Look, tell, wait, for ever; where there is nothing to look at, return. The first look is at once."""
        while self._probed is not None or self._faults.watches:
            health, why = await self.look()
            await self._instance.feel(health, why)
            await asyncio.sleep(self._every_s)

    async def look(self) -> tuple[Health, str]:
        """Look once. A look that does not end in time is waited for again, and no second one begun beside it."""
        if self._looking is None:
            self._looking = _aside(self._findings)
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await asyncio.wrap_future(self._looking)  # cannot be cancelled: it runs
        except TimeoutError:
            return Health.DEGRADED, f"a look at the device does not end within {PATIENCE_S:g} s"
        self._looking = None
        return found

    def _findings(self) -> tuple[Health, str]:
        return worst([self._faults.look(), *([] if self._probed is None else [self._probe(self._probed)])])

    def _probe(self, probed: Probed) -> tuple[Health, str]:
        try:
            return probed.probe()
        except Exception as error:  # a driver's own errors have many types; one that cannot even be asked is ill
            why = f"its device cannot be probed: {type(error).__name__}: {error}"[:LONGEST_TEXT]
            if why != self._instance.ailment:
                log.warning("the device cannot be probed", exc_info=True)
            return Health.DEGRADED, why


def _aside(work: Callable[[], tuple[Health, str]]) -> Future[tuple[Health, str]]:
    """Do work in a thread that nobody waits for at the end: a driver may hold it for ever."""
    future: Future[tuple[Health, str]] = Future()
    future.set_running_or_notify_cancel()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  whoever awaits it is told
            future.set_exception(error)

    Thread(target=do, name="checkup", daemon=True).start()
    return future
