"""What is said between instances, and who hears an instance's status: the simulated NATS.

Every message takes the same time and none is lost; what a lossy bus does is the fault tests' matter.
"""

from collections import defaultdict
from collections.abc import Callable

from msgspec import structs

from shared.messages import Role, ScenarioMap, Status
from simulator.clock import Clock

Hear = Callable[[Status | ScenarioMap], None]


class Bus:
    """Hands messages over after `message_s`. Hearers are told in the order in which they came."""

    def __init__(self, clock: Clock, message_s: float) -> None:
        self.clock = clock
        self.message_s = message_s
        self.said = 0
        self._all: list[Hear] = []
        self._of_group: defaultdict[str, defaultdict[str, list[Hear]]] = defaultdict(lambda: defaultdict(list))

    def say(self, hear: Callable[..., None], *what: object) -> None:
        """Tell one."""
        self.said += 1
        self.clock.after(self.message_s, hear, *what)

    def listen(self, hear: Hear) -> None:
        """Hear every status and map: a gateway, a monitor."""
        self._all.append(hear)

    def listen_to_decodes(self, scenario: str, group: str, hear: Hear) -> None:
        """Hear one group's decodes, by their statuses and the maps: a prefill, which asks nobody else.

        A real one hears the whole scenario, and each has a machine of its own to do it on.
        """
        self._of_group[scenario][group].append(hear)

    def deafen(self, scenario: str, group: str, hear: Hear) -> None:
        """Let a prefill hear nothing any more: it is gone."""
        self._of_group[scenario][group].remove(hear)

    def announce(self, message: Status | ScenarioMap) -> None:
        """Tell everybody whom it concerns."""
        self.said += 1
        self.clock.after(self.message_s, self._deliver, message)

    def _deliver(self, message: Status | ScenarioMap) -> None:
        for hear in self._all:
            hear(message)
        if isinstance(message, ScenarioMap):
            groups = {group.name: group for group in message.groups}
            for name, hearers in self._of_group[message.scenario].items():
                own = [structs.replace(groups[name], prefill=[])] if name in groups else []
                part = structs.replace(message, groups=own)
                for hear in hearers:
                    hear(part)
        elif message.role is Role.DECODE:
            for hear in self._of_group[message.scenario][message.group]:
                hear(message)
