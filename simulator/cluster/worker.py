"""What prefills and decodes have in common: a name, a life, a heartbeat, a meter."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from shared.messages import Epoch, Health, Role, State, Status
from shared.worker.work import WorkMeter
from simulator.cluster.attempt import Attempt
from simulator.cluster.bus import Bus
from simulator.cluster.spec import FleetSpec, ScenarioSpec
from simulator.engine.profile import Profile


@dataclass(frozen=True, slots=True)
class Post:
    """Who an instance is, and what it is given."""

    name: str
    group: str
    epoch: Epoch
    scenario: ScenarioSpec
    profile: Profile
    bus: Bus
    spec: FleetSpec
    number: int = 0  # of the last status under this epoch: it was starting before


class Worker(ABC):
    """One incarnation of an instance. `up`: its process lives; `frozen`: it lives, and does nothing."""

    role: Role

    def __init__(self, post: Post) -> None:
        self.name = post.name
        self.group = post.group
        self.epoch = post.epoch
        self.scenario = post.scenario
        self.profile = post.profile
        self.spec = post.spec
        self.bus = post.bus
        self.clock = post.bus.clock
        self.meter = WorkMeter()
        self.up = True
        self.frozen = False
        self.draining = False
        self.health = Health.OK
        self._number = post.number

    @abstractmethod
    def hear(self, attempt: Attempt) -> None:
        """Answer an offer of a prompt."""

    @abstractmethod
    def cancel(self, attempt: Attempt) -> None:
        """Drop an attempt, whatever it is at. Idempotent."""

    @abstractmethod
    def load(self) -> tuple[int, int, int, bool, int]:
        """Count slots, free ones, steps; whether it computes; free bytes of KV."""

    @abstractmethod
    def halt(self) -> None:
        """Stop computing: it died, or is frozen."""

    @abstractmethod
    def resume(self) -> None:
        """Go on computing after it was frozen."""

    @property
    def idle(self) -> bool:
        """Whether it holds nothing."""
        slots, free, *_ = self.load()
        return free == slots

    def freeze(self) -> None:
        """Stand still; the sockets stay."""
        self.frozen = True
        self.halt()

    def thaw(self) -> None:
        """Go on."""
        self.frozen = False
        self.resume()

    def die(self) -> None:
        """End without a word."""
        self.up = False
        self.halt()

    def status(self, state: State | None = None) -> Status:
        """What it says of itself now."""
        slots, free, steps, busy, kv_free_bytes = self.load()
        self._number += 1
        if state is None:
            state = State.DRAINING if self.draining else State.READY
        return Status(
            instance=self.name,
            epoch=self.epoch,
            role=self.role,
            state=state,
            scenario=self.scenario.name,
            group=self.group,
            slots=slots,
            free=free,
            steps=steps,
            busy=busy,
            kv_free_bytes=kv_free_bytes,
            number=self._number,
            health=self.health,
            work=self.meter.read(self.clock.now),
        )

    def announce(self) -> None:
        """Say so to everybody."""
        if self.up and not self.frozen:
            self.bus.announce(self.status())

    def beat(self) -> None:
        """Announce now and again after each heartbeat, as long as it lives."""
        if self.up:
            self.announce()
            self.clock.after(self.spec.heartbeat_s, self.beat)

    def silent(self, attempt: Attempt) -> bool:
        """Whether no answer to an offer can come; the gateway is told so when it would notice."""
        if not self.up:  # NATS says that nobody listens
            self.bus.say(attempt.gateway.unanswered, attempt, self.name)
        elif self.frozen:
            self.clock.after(
                self.spec.offer_timeout_s - self.bus.message_s, attempt.gateway.unanswered, attempt, self.name
            )
        return self.frozen or not self.up
