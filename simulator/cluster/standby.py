"""An instance that serves nobody: without a role, or on its way to one while its model loads.

Owns what it says of itself meanwhile. What it is to become is decided by the monitor, and done in `becoming`.
"""

from shared.messages import Epoch, Health, Role, State, Status
from shared.policy.fleet.events import NOWHERE, Place
from simulator.cluster.bus import Bus


class Standby:
    """One life of it. `place`: what it loads for; NOWHERE: it waits for a role."""

    def __init__(self, bus: Bus, name: str, epoch: Epoch, beat_s: float, place: Place = NOWHERE) -> None:
        self.name = name
        self.epoch = epoch
        self.place = place
        self.up = True
        self.number = 0
        self.health = Health.OK
        self._bus = bus
        self._beat_s = beat_s
        self.beat()

    @property
    def free(self) -> bool:
        """Whether it can be told to become something."""
        return self.up and self.place == NOWHERE

    def beat(self) -> None:
        """Announce now and again after each beat, as long as this life lasts."""
        if self.up:
            self.say(State.READY if self.place == NOWHERE else State.STARTING)
            self._bus.clock.after(self._beat_s, self.beat)

    def say(self, state: State) -> None:
        """Announce this state."""
        self.number += 1
        waits = self.place == NOWHERE
        self._bus.announce(
            Status(
                instance=self.name,
                epoch=self.epoch,
                role=Role.STANDBY if waits else self.place.role,
                state=state,
                scenario="" if waits else self.place.scenario,
                group="" if waits else self.place.group,
                number=self.number,
                health=self.health,
            )
        )

    def end(self, *, said: bool) -> None:
        """End this life, with a word or without one."""
        if said and self.up:
            self.say(State.STOPPED)
        self.up = False
