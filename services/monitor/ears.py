"""What the monitor hears: statuses, maps, pulses, links, traffic. Refuses bad bytes, keeps the last, feeds events.

Whoever is named in a message must be the one whose subject it came on: who may speak there is the server's to see to.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from services.monitor.readings import Readings
from services.monitor.sight import Sight
from shared.bus import Delivery, Handler
from shared.errors import MalformedMessage
from shared.messages import VERSION, Links, ScenarioMap, Status, Traffic, Value, decode
from shared.policy.fleet.events import Event, LinksSeen
from shared.policy.world import MapSeen, PulseSeen, StatusSeen
from shared.subjects import Subjects

T = TypeVar("T", bound=Value)

log = logging.getLogger(__name__)


class Ears:
    """The handlers of the monitor's subscriptions."""

    def __init__(
        self,
        sight: Sight,
        readings: Readings,
        feed: Callable[[Event], None],
        measure: Callable[[Status | Traffic], None],
    ) -> None:
        self._sight = sight
        self._readings = readings
        self._feed = feed
        self._measure = measure

    def handlers(self, subjects: Subjects) -> list[tuple[str, Handler]]:
        """List what to subscribe to."""
        return [
            (subjects.status("*"), self._on_status),  # `*` covers `_fleet` too
            (subjects.map("*"), self._on_map),  # of another monitor, while it leads
            (subjects.pulse(), self._on_pulse),
            (subjects.links("*"), self._on_links),
            (subjects.traffic("*"), self._on_traffic),
        ]

    def _on_status(self, delivery: Delivery) -> None:
        status = _read(delivery, Status, "status")
        if status is None or _speaker(delivery) != status.instance or not self._sight.see(status):
            return
        if status.version == VERSION:
            self._feed(StatusSeen(status))
            self._measure(status)
        elif status.number == 1:
            text = "an instance speaks another version of the protocol and gets no place; upgrade it, or this monitor"
            log.error(text, extra={"instance": status.instance, "its": status.version, "ours": VERSION})

    def _on_map(self, delivery: Delivery) -> None:
        scenario_map = _read(delivery, ScenarioMap, "map")
        if scenario_map is not None:
            self._feed(MapSeen(scenario_map))

    def _on_pulse(self, _delivery: Delivery) -> None:
        self._feed(PulseSeen())

    def _on_links(self, delivery: Delivery) -> None:
        links = _read(delivery, Links, "links")
        if links is not None and _speaker(delivery) == links.instance and self._readings.see_links(links):
            self._feed(LinksSeen(links))

    def _on_traffic(self, delivery: Delivery) -> None:
        traffic = _read(delivery, Traffic, "traffic")
        if traffic is None or _speaker(delivery) != traffic.gateway:
            return
        if traffic.scenario == _scenario(delivery) and self._readings.see_traffic(traffic):
            self._measure(traffic)


def _read(delivery: Delivery, kind: type[T], what: str) -> T | None:
    try:
        message: T = decode(delivery.data, kind, what)
    except MalformedMessage as error:
        log.warning("%s refused", what, extra={"subject": delivery.subject, "error": str(error)})
        return None
    return message


def _speaker(delivery: Delivery) -> str:
    return delivery.subject.rpartition(".")[2]


def _scenario(delivery: Delivery) -> str:
    return delivery.subject.split(".")[-3]
