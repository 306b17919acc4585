"""The other workers of a scenario, as the monitor's map and their own statuses tell.

Owns the subscriptions. What they mean is `shared.policy.placement`'s: who is best, who is lost, whose epoch is old.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.bus import Bus, Delivery
from shared.errors import MalformedMessage
from shared.messages import Epoch, Role, ScenarioMap, Status, decode
from shared.policy.asking import Asking
from shared.policy.placement import FleetView
from shared.subjects import Subjects
from shared.worker.metrics import WorkerMetrics

log = logging.getLogger(__name__)


class Peers:
    """Whom to ask, best first, and whose word is too old to count."""

    def __init__(self, scenario: str, group: str, metrics: WorkerMetrics, view: FleetView | None = None) -> None:
        self.view = view if view is not None else FleetView()
        self._scenario = scenario
        self._group = group  # as configured; the map's word counts once it names us
        self._groups: dict[str, str] = {}  # of the prefills
        self._newest: ScenarioMap | None = None
        self._metrics = metrics
        self.listeners: list[Callable[[ScenarioMap | Status], None]] = []  # hear what is learnt, after it is
        self.news = asyncio.Event()  # set, and replaced, when a decode may have room again

    async def listen(self, bus: Bus, subjects: Subjects, stack: AsyncExitStack, *, statuses: bool) -> None:
        """Hear maps until the stack closes, and statuses where somebody is to be chosen by them."""
        wanted = [subjects.map(self._scenario)]
        if statuses:
            wanted.append(subjects.status(self._scenario))
        for subject in wanted:
            subscription = await bus.subscribe(subject, self.hear)
            stack.push_async_callback(subscription.stop)

    async def recall(self, redis: Redis) -> None:
        """Read the map that Redis holds; without Redis the next announcement brings it."""
        try:
            data = await redis.get(keys.scenario_map(self._scenario))
            if isinstance(data, bytes):
                self.learn(decode(data, ScenarioMap, "map in Redis"))
        except (RedisError, OSError, MalformedMessage) as error:
            log.warning("no map from Redis", extra={"error": str(error)})

    def hear(self, delivery: Delivery) -> None:
        """Take in a map or a status; anything else is counted and forgotten."""
        try:
            message: ScenarioMap | Status = decode(delivery.data, ScenarioMap | Status, "status")
        except MalformedMessage as error:
            self._metrics.malformed()
            log.warning("a message was refused", extra={"subject": delivery.subject, "error": str(error)})
            return
        self.learn(message)

    def learn(self, message: ScenarioMap | Status) -> None:
        """Take in what was heard, or what Redis held at start."""
        now = time.monotonic()
        self.view.hear(now)
        self.view.see(message, now)
        if isinstance(message, ScenarioMap) and self._is_news(message):
            self._newest = message
            self._groups = {member.instance: group.name for group in message.groups for member in group.prefill}
        if isinstance(message, ScenarioMap) or (message.role is Role.DECODE and message.free):
            self.news.set()
            self.news = asyncio.Event()
        for listener in self.listeners:
            listener(message)

    def _is_news(self, message: ScenarioMap) -> bool:
        known = self._newest
        newer = known is None or (message.epoch, message.version) > (known.epoch, known.version)
        return message.scenario == self._scenario and newer

    def members(self, prefill: str) -> dict[str, Epoch]:
        """Name the decodes of a prefill's group in the newest map, joined or not, with their epochs there."""
        own = self._groups.get(prefill, self._group)
        groups = [] if self._newest is None else self._newest.groups
        return {member.instance: member.epoch for group in groups if group.name == own for member in group.decode}

    def asking(self, prefill: str, last: Collection[str] = ()) -> Asking:
        """Begin a search among the decode workers that a prefill may push to, those of its group; `last` behind."""
        return Asking(self.view, self._scenario, self._groups.get(prefill, self._group), last)

    def outdated(self, instance: str, epoch: Epoch) -> bool:
        """Whether an instance speaks with an epoch that it has lost since: a holder that was paused and replaced."""
        return not self.view.current(instance, epoch)
