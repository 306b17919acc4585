"""What the monitor's decider is told and what it asks for. Times are monotonic seconds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.messages import Epoch, InstanceRecord, Links, Revision, Role, ScenarioMap
from shared.policy.plan import Plan
from shared.policy.world import BusDown, BusUp, MapSeen, PulseSeen, StatusSeen, Tick

AS_CONFIGURED: Final = Revision(0)

# ---- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaderGained:
    """We hold the leader's lease. `maps` and `records` are what Redis has of the time before us."""

    epoch: Epoch
    maps: tuple[ScenarioMap, ...] = ()
    records: tuple[InstanceRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaderLost:
    """We may not act any more; what we observe is still remembered."""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Redis answered, holds our lease, and holds none (or another epoch's) of this instance. Unknown is not lost."""

    instance: str
    epoch: Epoch  # of the lease that is gone


@dataclass(frozen=True, slots=True)
class ConnectionRefused:
    """The instance's health port refuses connections: the process is gone."""

    instance: str
    epoch: Epoch  # as known when the connection was tried


@dataclass(frozen=True, slots=True)
class AssignAccepted:
    """The standby or worker answered Done: it becomes the role."""

    instance: str


@dataclass(frozen=True, slots=True)
class AssignFailed:
    """The standby or worker answered Rejected, or nothing within its timeout."""

    instance: str
    message: str = ""
    certain: bool = False  # it said no, or nobody was there to hear; else it may have understood all the same


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """An operator wants the instance out of its group; it is replaced."""

    instance: str


@dataclass(frozen=True, slots=True)
class Planned:
    """The scenario's groups are to be like this from now on. A leader's only; the map then holds the plan."""

    plan: Plan
    cause: str  # in words, for the log


@dataclass(frozen=True, slots=True)
class LinksSeen:
    """A prefill said which decodes it can push to."""

    links: Links


Event = (
    StatusSeen | MapSeen | LeaderGained | LeaderLost | LeaseLost | ConnectionRefused | AssignAccepted | AssignFailed
    | DrainAsked | Planned | LinksSeen | PulseSeen | BusDown | BusUp | Tick
)  # fmt: skip

# ---- actions ---------------------------------------------------------------------------------------------------------


class Cause(StrEnum):
    """Why an action is asked for."""

    LED = "led"  # we became leader: our map outranks the old leader's
    READY = "ready"
    NEW_EPOCH = "new_epoch"
    SILENT = "silent"
    LEASE_LOST = "lease_lost"
    REFUSED = "connection_refused"
    STOPPED = "stopped"  # by its own word, failed included
    DRAINING = "draining"
    STUCK = "stuck"  # busy, and its steps stand still
    TOO_SLOW = "not_ready_in_time"
    ASSIGN_FAILED = "assign_failed"
    MISSING = "missing"  # the group is below its wanted size
    PLANNED = "planned"  # the plan has changed
    JOINED = "joined"  # every pair that it is part of was verified
    PHASE = "phase"  # a group has come a step further
    SURPLUS = "surplus"  # more than the plan wants, or not what the plan wants there
    UNREACHABLE = "unreachable"  # a pair that it is part of could not be verified
    SICK = "sick"  # its device or node has failed, by its own probes
    DEGRADED = "degraded"  # a healthy one has taken its place


@dataclass(frozen=True, slots=True)
class PublishMap:
    """Write the map to Redis, then announce it on its subject; in the order of the list, before what follows."""

    map: ScenarioMap
    cause: Cause


@dataclass(frozen=True, slots=True)
class Assign:
    """Send AssignRole to the standby or worker; answer with AssignAccepted or AssignFailed.

    A worker has left the map already. As `Role.STANDBY` it is to wait for a role; the place is then NOWHERE's.
    """

    instance: str
    role: Role
    scenario: str
    group: str
    cause: Cause
    revision: Revision = AS_CONFIGURED


@dataclass(frozen=True, slots=True)
class SendDrain:
    """Send Drain to the instance, which has left the map already."""

    instance: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Retire:
    """The instance was taken for lost: note it as failed in its record, for `baton status`; count it."""

    instance: str
    epoch: Epoch
    cause: Cause


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance works."""

    scenario: str
    group: str
    role: Role


NOWHERE: Final = Place("_", "_", Role.STANDBY)
"""The place of a standby."""


@dataclass(frozen=True, slots=True)
class Provide:
    """The provisioner is to bring so many standbys more; stands until the next one, 0 included."""

    missing: int


@dataclass(frozen=True, slots=True)
class Release:
    """This standby is not needed any more: the provisioner may have it. It is never sent anywhere from now on."""

    instance: str


@dataclass(frozen=True, slots=True)
class Substituted:
    """A hole is filled: for the log and the metrics. Each step with the seconds since the one before.

    Of `ordered`, `accepted`, `starting`, `ready` and `joined` those that were seen, counted from when the member was
    lost or the plan asked for it.
    """

    place: Place
    instance: str
    cause: Cause  # of the hole
    steps: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class HeldOff:
    """The instance was lost so often lately that it gets no place for a while: note why."""

    instance: str
    losses: int
    seconds: float


Action = PublishMap | Assign | SendDrain | Retire | Provide | Release | Substituted | HeldOff


@dataclass(frozen=True, slots=True)
class FleetRules:
    """Times and bounds of the monitor's decider."""

    heartbeat_s: float = 0.5
    misses: int = 3  # heartbeats missed before an instance is taken for lost
    lease_grace_s: float = 2.0  # for one that lost its lease but still speaks, to come with a new epoch
    stuck_s: float = 60.0  # busy without a step for so long is lost
    starting_silence_s: float = 20.0  # silence allowed while a process or a model loads
    assign_s: float = 5.0  # for the standby's answer
    assign_tries: int = 3  # orders to a standby that speaks but does not answer
    begin_s: float = 60.0  # from its answer to its first word in the new role
    doubt_s: float = 20.0  # the same where its answer is missing: it is rather frozen than starting
    ready_s: float = 600.0  # for a substitute that shows life to become ready; then another
    settle_s: float = 10.0  # after becoming leader, before a group is filled that we did not see lose anybody
    retry_s: float = 1.0  # before the next substitute after a failed one; doubled by each failure
    retry_max_s: float = 60.0
    unfit_s: float = 30.0  # before a standby or worker that said no is asked again
    drain_s: float = 30.0  # for what a worker holds when it is given another role
    verify_s: float = 20.0  # for the pairs of a newcomer to be verified; then another takes its place
    form_s: float = 30.0  # before a new group opens with fewer members than wanted
    flaps: int = 3  # losses of one instance within `flap_window_s`, after which it gets no place for a while
    flap_window_s: float = 600.0
    hold_off_s: float = 60.0  # doubled each time
    hold_off_max_s: float = 900.0
    provide: bool = False  # there is a provisioner, to be told what is missing
    standbys: int = 0  # kept free, where there is a provisioner
    release: bool = False  # standbys beyond these are given back to it
    release_s: float = 30.0  # for which a standby must have been one too many
    default_group: str = "main"  # of ready instances that name none
