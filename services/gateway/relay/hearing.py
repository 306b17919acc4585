"""What a gateway hears of the fleet: statuses, maps, pulses, and whether the bus is there at all.

Owns these subscriptions and turns what they bring into the dispatcher's events.
"""

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.bus import Bus, Delivery
from shared.errors import MalformedMessage
from shared.messages import Pulse, ScenarioMap, Status, decode
from shared.policy.dispatch_events import Event
from shared.policy.world import BusDown, BusUp, MapSeen, PulseSeen, StatusSeen
from shared.subjects import Subjects

log = logging.getLogger(__name__)


class Hearing:
    """One per gateway."""

    def __init__(self, bus: Bus, subjects: Subjects, tell: Callable[[Event], None]) -> None:
        self.malformed = 0
        self._bus = bus
        self._subjects = subjects
        self._tell = tell
        self._connected = True
        self._reconnects = bus.stats.reconnects

    async def open(self, scenarios: list[str], instance: str, stack: AsyncExitStack) -> None:
        """Listen to every scenario, to the monitor's pulse, and to our own heartbeat's echo."""
        for name in scenarios:
            await self._listen(self._subjects.status(name), self._on_status, stack)
            await self._listen(self._subjects.map(name), self._on_map, stack)
        await self._listen(self._subjects.pulse(), self._on_pulse, stack)
        await self._listen(self._subjects.fleet_status(instance), self._on_echo, stack)

    async def read_maps(self, scenarios: list[str], redis: Redis) -> None:
        """Start with the maps that Redis holds; without Redis, wait for the monitor's next announcement."""
        for name in scenarios:
            try:
                data = await redis.get(keys.scenario_map(name))
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("no map from Redis", extra={"scenario": name, "why": str(error)})
                continue
            if isinstance(data, bytes):
                self._on_map(Delivery("", data))

    def sweep(self) -> None:
        """Notice that the bus went away or came back."""
        connected, reconnects = self._bus.connected, self._bus.stats.reconnects
        unseen = connected and self._connected and reconnects != self._reconnects  # it was away between two looks
        if connected != self._connected or unseen:
            for event in (BusDown(), BusUp()) if unseen else (BusUp() if connected else BusDown(),):
                self._tell(event)
        self._connected, self._reconnects = connected, reconnects

    async def _listen(self, subject: str, handler: Callable[[Delivery], None], stack: AsyncExitStack) -> None:
        subscription = await self._bus.subscribe(subject, handler)
        stack.push_async_callback(subscription.stop)

    def _on_status(self, delivery: Delivery) -> None:
        try:
            status: Status = decode(delivery.data, Status, "status")
        except MalformedMessage:
            self.malformed += 1
            return
        self._tell(StatusSeen(status))

    def _on_map(self, delivery: Delivery) -> None:
        try:
            seen: ScenarioMap = decode(delivery.data, ScenarioMap, "map")
        except MalformedMessage:
            self.malformed += 1
            return
        self._tell(MapSeen(seen))

    def _on_pulse(self, delivery: Delivery) -> None:
        try:
            decode(delivery.data, Pulse, "pulse")
        except MalformedMessage:
            self.malformed += 1
            return
        self._tell(PulseSeen())

    def _on_echo(self, delivery: Delivery) -> None:  # noqa: ARG002  that it came is all it says
        self._tell(PulseSeen())
