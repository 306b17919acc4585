"""What a status means for who is where: who comes, who goes, who is between two lives.

Owns the reading of statuses against the orders that were given. Judges nobody's silence and fills no hole.
"""

from shared.messages import Health, Role, State, Status
from shared.policy.fleet.census import Seen
from shared.policy.fleet.events import AssignAccepted, AssignFailed, Cause, Place
from shared.policy.fleet.losses import Losses
from shared.policy.fleet.parts import Parts
from shared.policy.fleet.substitutes import Sent


class Arrivals:
    """Hears the instances, and the answers to orders."""

    def __init__(self, parts: Parts, losses: Losses) -> None:
        self._parts = parts
        self._losses = losses
        self._census, self._groups, self._substitutes = parts.census, parts.groups, parts.substitutes

    def see(self, status: Status, now: float) -> None:
        """Take in a status."""
        sent = self._substitutes.get(status.instance)
        holds = sent is not None and not sent.left
        self._see(status, now)
        if sent is not None and sent.was is not None and holds and sent.left:
            self._groups.touch((sent.was.scenario, sent.was.group))  # if it closes, its decodes may go now

    def _see(self, status: Status, now: float) -> None:
        seen = self._census.see(status, now)
        if seen is None:
            return
        if seen.role is Role.STANDBY:
            self._see_standby(seen, now)
            return
        self._parts.spares.unavailable(seen.instance)
        place = seen.place(self._parts.rules.default_group)
        if place is None:
            return
        if seen.health is Health.FAILED and seen.state in (State.READY, State.STARTING):
            self._losses.lose(seen.instance, Cause.SICK, now)
            return
        sent = self._substitutes.get(seen.instance)
        if sent is not None and sent.was is not None and not sent.begun and self._between(seen, sent, place, now):
            return
        self._hear(seen, place, now)

    def _hear(self, seen: Seen, place: Place, now: float) -> None:
        match seen.state:
            case State.READY:
                self.ready(seen, place, now)
            case State.STARTING:
                self.starting(seen, place, now)
            case State.DRAINING | State.STOPPED | State.FAILED:
                self._leaves(seen, now)

    def ready(self, seen: Seen, place: Place, now: float) -> None:
        """Take in a worker that is ready."""
        name = seen.instance
        if self._census.stuck(seen):
            self._losses.lose(name, Cause.STUCK, now)
            return
        if self._parts.staffing.leaving.get(name) == seen.epoch:
            return
        if self._substitutes.get(name) is not None:
            self._parts.steps.mark(name, "ready", now)
        self._parts.holes.check(self._substitutes.arrived(name, place))
        if self._parts.leading:
            self._parts.staffing.place(seen, place, held=self._held(name, place, now))

    def starting(self, seen: Seen, place: Place, now: float) -> None:
        """Take in a worker that loads: as a substitute, sent by us or not."""
        name = seen.instance
        if self._groups.place(name) is not None and self._parts.leading:
            self._losses.count(name, now)
        self._losses.leave(name, Cause.NEW_EPOCH, now)
        sent = self._substitutes.get(name)
        if sent is not None and sent.place != place:
            self._losses.fail(name, now, pause=False)
            sent = None
        if sent is not None:
            self._substitutes.begun(name)
        elif not self._held(name, place, now) and self._parts.staffing.suits(seen, place):
            self._parts.steps.begin(name, place, "starting", now)
            self._substitutes.adopt(name, seen.epoch, place, now)
        self._parts.steps.mark(name, "starting", now)
        self._groups.touched[place] = None

    def answer(self, event: AssignAccepted | AssignFailed, now: float) -> None:
        """Take in what one that was told to become something said to it."""
        name, sent = event.instance, self._substitutes.get(event.instance)
        if sent is None or sent.begun:
            return
        self._census.ignore_silence(name)
        if isinstance(event, AssignAccepted):
            self._substitutes.accepted(name, now)
            self._parts.steps.mark(name, "accepted", now)
        elif event.certain and sent.orders == 1:
            self._give_up(name, now)
        else:  # an order that was repeated may be refused because the first one was obeyed
            self._substitutes.doubted(name, now)

    def _leaves(self, seen: Seen, now: float) -> None:
        name = seen.instance
        self._parts.staffing.leaving.pop(name, None)
        if seen.state is State.FAILED and (self._groups.place(name) or self._substitutes.get(name)):
            self._losses.count(name, now)
        cause = Cause.DRAINING if seen.state is State.DRAINING else Cause.STOPPED
        self._losses.leave(name, cause, now)
        self._losses.fail(name, now)
        self._parts.holes.unsettle(now)

    def _between(self, seen: Seen, sent: Sent, place: Place, now: float) -> bool:
        """Hear a worker that was told to become something else. False: it is another life, and its word counts."""
        name = seen.instance
        if seen.epoch > sent.epoch and place == sent.place:
            return False
        if seen.life > sent.epoch or seen.state is State.FAILED:  # its supervisor has started it again
            self._losses.fail(name, now, pause=False)
            return False
        self._census.ignore_silence(name)
        if seen.state is State.READY:
            self._remind(name, sent, now)
        elif seen.state is State.DRAINING:
            self._substitutes.accepted(name, now)
        elif seen.state is State.STOPPED:
            self._substitutes.finished(name, now)
        return True

    def _see_standby(self, seen: Seen, now: float) -> None:
        name, spares = seen.instance, self._parts.spares
        sent = self._substitutes.get(name)
        if sent is not None and sent.was is None and not sent.begun:
            self._census.ignore_silence(name)  # it may fall silent for as long as a process takes to start
            if seen.state is State.READY:
                self._remind(name, sent, now)
            elif seen.state is State.FAILED:
                self._losses.fail(name, now)
            return
        if sent is not None:  # it was a worker: it has come where it was sent, or was started again
            self._losses.fail(name, now, pause=False)
        self._losses.leave(name, Cause.NEW_EPOCH, now)
        free = seen.state is State.READY and seen.health is not Health.FAILED
        if free and not self._parts.flapping.held(name, now):
            spares.available(name, seen.epoch, degraded=seen.health is Health.DEGRADED)
        else:
            spares.unavailable(name)

    def _remind(self, instance: str, sent: Sent, now: float) -> None:
        """Send the order again to one that seems not to have heard it, or give it up."""
        if not self._substitutes.send_again(instance, now):
            return
        if sent.orders > self._parts.rules.assign_tries:
            self._give_up(instance, now)
        elif self._parts.leading:
            self._parts.staffing.reorder(instance)

    def _give_up(self, instance: str, now: float) -> None:
        self._census.listen(instance, now)
        self._parts.spares.unfit(instance, now)
        self._losses.fail(instance, now, Cause.ASSIGN_FAILED, pause=False)

    def _held(self, instance: str, place: Place, now: float) -> bool:
        """Whether it is held off for now; not, where nobody else would serve."""
        nobody = (
            not self._groups.seats(place) and not self._substitutes.on_the_way(place) and not self._parts.spares.any
        )
        return self._parts.flapping.held(instance, now) and not nobody
