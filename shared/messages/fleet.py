"""What instances are and what is said about them: roles, statuses, the map, and what the monitor asks for."""

from enum import StrEnum

from shared.messages.wire import FIRST_VERSION, Count, Epoch, Message, Name, Value


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


class Member(Value, frozen=True):
    """One instance's place in a group; a frame or offer with an older epoch is refused."""

    instance: Name
    epoch: Epoch


class Group(Value, frozen=True):
    """Prefills and decodes that may push to each other, any to any."""

    name: Name
    prefill: list[Member] = []
    decode: list[Member] = []


class ScenarioMap(Message, frozen=True, tag="map"):
    """monitor -> everyone; also in Redis. The whole truth about one scenario's members; higher version wins."""

    scenario: Name
    version: Count
    epoch: Epoch  # of the leading monitor: an older leader's map is refused
    groups: list[Group] = []


class AssignRole(Message, frozen=True, tag="assign"):
    """monitor -> standby, answered Done or Rejected: become this role, joining that group."""

    role: Role
    scenario: Name
    group: Name


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
