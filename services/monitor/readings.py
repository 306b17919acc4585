"""What prefills said last of their links, and gateways of their traffic. Bounded; forgets who is silent for long."""

import time
from collections.abc import Callable
from typing import Final

from shared.messages import Links, Traffic

MOST: Final = 20_000
"""Senders remembered; a sender of made-up names cannot fill the memory."""
FORGET_S: Final = 60.0


class Readings:
    """The last Links of each prefill, and the last Traffic of each gateway and scenario."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.links: dict[str, Links] = {}
        self.traffic: dict[tuple[str, str], Traffic] = {}  # by gateway and scenario
        self._heard: dict[str | tuple[str, str], float] = {}
        self._clock = clock

    def see_links(self, links: Links) -> bool:
        """Take links in; False when an older life of that prefill says so, or it is one too many."""
        last = self.links.get(links.instance)
        if (last is None and len(self.links) >= MOST) or (last is not None and links.epoch < last.epoch):
            return False
        self.links[links.instance] = links
        self._heard[links.instance] = self._clock()
        return True

    def see_traffic(self, traffic: Traffic) -> bool:
        """Take traffic in; False when it is older than what we have, or one too many."""
        key = (traffic.gateway, traffic.scenario)
        last = self.traffic.get(key)
        if last is None and len(self.traffic) >= MOST:
            return False
        if last is not None and (traffic.epoch, traffic.number) <= (last.epoch, last.number):
            return False
        self.traffic[key] = traffic
        self._heard[key] = self._clock()
        return True

    def forget(self) -> None:
        """Drop whoever has not been heard for long."""
        now = self._clock()
        for key in [key for key, at in self._heard.items() if now - at > FORGET_S]:
            del self._heard[key]
            if isinstance(key, str):
                del self.links[key]
            else:
                del self.traffic[key]
