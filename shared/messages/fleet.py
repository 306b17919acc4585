"""What instances are and what is said about them: roles, statuses, the map, and what the monitor asks for."""

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from shared.messages.wire import FIRST_VERSION, Count, Epoch, Message, Name, Value

MOST_GROUPS: Final = 1024
"""Of one scenario."""
MOST_REVISIONS: Final = 8
"""Of one scenario's model that its map explains: what runs, what comes, what can be gone back to."""


class Role(StrEnum):
    """What an instance does."""

    GATEWAY = "gateway"
    PREFILL = "prefill"
    DECODE = "decode"
    MONITOR = "monitor"
    STANDBY = "standby"


class State(StrEnum):
    """Where an instance is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Health(StrEnum):
    """How well an instance's device and node are, by its own probes."""

    OK = "ok"
    DEGRADED = "degraded"  # serves, but is replaced when a standby is free
    FAILED = "failed"  # serves nobody any more, and says so


class Work(Value, frozen=True):
    """What a worker has done since it started; whoever wants a rate takes the difference of two."""

    passed: Count = 0  # requests that went through well: handed off, or ended
    slot_us: Count = 0  # time of all requests in their slots; prefill: until the KV is computed; decode: in the batch
    busy_us: Count = 0  # time with at least one such request
    wait_us: Count = 0  # prefill: of computed KV, until a decode has it (waiting and transfer)
    tokens: Count = 0  # prefill: prompt tokens computed; decode: tokens generated
    cached: Count = 0  # prefill: prompt tokens found in the prefix cache
    refused: Count = 0  # offers for which there was no room


class Status(Message, frozen=True, tag="status"):
    """instance -> everyone, at each heartbeat and at each freed slot."""

    instance: Name
    epoch: Epoch
    role: Role
    state: State
    scenario: str = ""
    group: str = ""
    slots: Count = 0  # requests it can hold
    free: Count = 0  # of them free now; the instance's own answer to an offer decides
    steps: Count = 0  # engine steps since start: a busy worker whose steps stand still is stuck
    busy: bool = False
    kv_free_bytes: Count = 0  # decode: room in its blocks
    number: Count = 0  # grows with each status; an older one that comes late is ignored
    version: Count = FIRST_VERSION  # of the protocol; one of another version gets no place in the map
    health: Health = Health.OK
    revision: Count = 0  # of the scenario's model that it runs
    work: Work | None = None


class Member(Value, frozen=True):
    """One instance's place in a group; a frame or offer with an older epoch is refused."""

    instance: Name
    epoch: Epoch
    joined: bool = True  # False: it connects to its peers and is verified; nothing goes there yet


class GroupPhase(StrEnum):
    """The steps in which a group is set up, and its end. Requests go to an open one only."""

    COLLECT = "collect"  # instances are chosen and told, until there are as many as wanted
    LOAD = "load"  # their models load
    CONNECT = "connect"  # every prefill pushes a buffer to every decode, to verify the pair
    OPEN = "open"  # all are well: requests come
    CLOSING = "closing"  # no new request; members leave when they have finished


class Group(Value, frozen=True):
    """Prefills and decodes that may push to each other, any to any."""

    name: Name
    prefill: list[Member] = []
    decode: list[Member] = []
    phase: GroupPhase = GroupPhase.OPEN
    prefills: Count = 0  # members wanted
    decodes: Count = 0
    revision: Count = 0  # of the scenario's model
    strategy: str = ""  # how its instances split the model; groups of one strategy are asked alike
    canary: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """Percent of the requests that go here and nowhere else; 0: an ordinary group."""


class Revision(Value, frozen=True):
    """One version of what a scenario runs. Number 0 is what the configuration says."""

    number: Count
    model: str = ""  # empty: as configured
    options: dict[str, Any] = {}  # of the engine, over the configured ones


class ScenarioMap(Message, frozen=True, tag="map"):
    """monitor -> everyone; also in Redis. The whole truth about one scenario; higher version wins."""

    scenario: Name
    version: Count
    epoch: Epoch  # of the leading monitor: an older leader's map is refused
    groups: Annotated[list[Group], msgspec.Meta(max_length=MOST_GROUPS)] = []
    revisions: Annotated[list[Revision], msgspec.Meta(max_length=MOST_REVISIONS)] = []
    target: Count = 0  # the revision that all groups are to have


class AssignRole(Message, frozen=True, tag="assign"):
    """monitor -> standby or worker, answered Done or Rejected: become this role, joining that group.

    A worker finishes what it holds first. As `standby` it waits for a role again; scenario and group then mean nothing.
    """

    role: Role
    scenario: Name
    group: Name
    revision: Revision = Revision(0)
    seconds: float = 30.0  # for what a worker holds


class Drain(Message, frozen=True, tag="drain"):
    """monitor or operator -> instance, answered Done when it has begun: finish what you hold, then stop."""

    seconds: float


class Reload(Message, frozen=True, tag="reload"):
    """operator -> instance, answered Reloaded or Rejected: read your configuration again."""


class Reloaded(Message, frozen=True, tag="reloaded"):
    """instance -> operator: the configuration is in force, but for the keys that wait for a restart."""

    instance: Name
    waiting: list[str] = []


class Done(Message, frozen=True, tag="done"):
    """instance -> asker: understood and begun."""

    instance: Name


class Pulse(Message, frozen=True, tag="pulse"):
    """leading monitor -> everyone: Redis confirms my lease, so whoever cannot confirm its own is cut off alone."""

    instance: Name
    epoch: Epoch


class Link(Value, frozen=True):
    """One prefill's way to one decode, and what went there since the prefill started."""

    decode: Name
    epoch: Epoch
    verified: bool = False
    problem: str = ""  # why not
    pushes: Count = 0
    bytes: Count = 0
    push_us: Count = 0  # of all pushes


class Links(Message, frozen=True, tag="links"):
    """prefill -> monitor, at each change and about each second: which decodes it can push to."""

    instance: Name
    epoch: Epoch
    links: Annotated[list[Link], msgspec.Meta(max_length=4096)] = []


class LinkCheck(Message, frozen=True, tag="link.check"):
    """prefill -> decode, answered KvGrant or Rejected: a push is wanted that is of no request, to verify the pair."""

    prefill: Name
    epoch: Epoch
    number: Count  # of the check, so that a late answer is not taken for another's
    fingerprint: str
    kv_bytes: Count
    host: str = ""


class InstanceRecord(Value, frozen=True):
    """What Redis holds of an instance under `baton:instance:<id>`; what `baton status` shows."""

    id: Name
    role: Role
    state: State
    epoch: Epoch
    scenario: str = ""
    group: str = ""
    pid: int = 0
    host: str = ""
    slots: Count = 0
    load: Count = 0  # slots in use
    health_url: str = ""
    version: int = FIRST_VERSION
    reason: str = ""  # why it failed or stopped
    health: Health = Health.OK
    revision: Count = 0
