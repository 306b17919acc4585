"""What a worker stands on: its engine and text, its staging memory, its place in the fleet, and its voice.

Holds them together for the two services that are built on it, and knows what follows from the engine's death. `opening`
makes one from an instance; tests make one by hand.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from opentelemetry.trace import Tracer

from shared.bus import Bus
from shared.config import FleetSettings
from shared.engine import Engine
from shared.errors import EngineFailed
from shared.kv.arena import Arena
from shared.messages import Epoch, Request
from shared.policy.orphans import Orphans
from shared.subjects import Subjects
from shared.tasks import Tasks
from shared.worker.frames import FrameSender
from shared.worker.keeping import Keeping
from shared.worker.links import LinkBook
from shared.worker.metrics import WorkerMetrics
from shared.worker.peers import Peers
from shared.worker.resuming import Resuming
from shared.worker.roster import Admission, R, Roster
from shared.worker.tokens import Pieces, Text
from shared.worker.work import WorkMeter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that is there before the first offer."""

    name: str
    scenario: str
    host: str  # whose shared memory we can offer; see shared.kv.shm
    bus: Bus
    subjects: Subjects
    tasks: Tasks
    fleet: FleetSettings
    engine: Engine
    pieces: Pieces
    open_text: Callable[[Request, list[int]], Text]  # with the tokens generated so far
    arena: Arena
    metrics: WorkerMetrics
    tracer: Tracer
    sender: FrameSender
    peers: Peers
    epoch: Callable[[], Epoch]
    unready: Callable[[], str]  # why no offer is taken now; nothing when they are
    freed: Callable[[], None]  # tells the fleet at once
    work: WorkMeter = field(default_factory=WorkMeter)
    links: LinkBook = field(default_factory=LinkBook)  # of a prefill

    def roster(self, admission: Admission) -> Roster[R]:
        """Make the empty roster of the attempts to come."""
        fleet = self.fleet
        return Roster(
            self.name,
            admission,
            bus=self.bus,
            tasks=self.tasks,
            sender=self.sender,
            metrics=self.metrics,
            work=self.work,
            keeping=Keeping(fleet.keep_s),
            orphans=Orphans(fleet.heartbeat_s * (fleet.heartbeat_misses + 1), fleet.orphan_grace_s),
        )

    def resuming(self, roster: Roster[R]) -> Resuming[R]:
        """Make what answers claims for the streams of a roster."""
        return Resuming(roster, bus=self.bus, tasks=self.tasks, metrics=self.metrics)


async def live(standing: Standing, roster: Roster[R], read_steps: Callable[[], Awaitable[None]]) -> None:
    """Read the engine's steps until it closes. When it dies, every attempt fails first, then this raises."""
    try:
        await read_steps()
    except EngineFailed as error:
        log.critical("the engine died", extra={"instance": standing.name, "error": str(error)})
        await roster.evict(error)
        raise


async def only_watch(engine: Engine) -> None:
    """Read the steps of an engine that decodes nothing: they bring the news of its death."""
    async for _ in engine.steps():
        pass
