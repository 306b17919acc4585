"""The parts of the page as they are sent: JSON, one part for the fleet, one for each scenario, one for each group."""

from typing import TypedDict, final


class InstancePart(TypedDict):
    """One instance. `place`: member, joining (in the map, nothing goes there yet), outside (the map has it not)."""

    id: str
    role: str
    state: str
    health: str
    place: str
    reason: str
    revision: int
    epoch: str
    pid: int
    host: str
    slots: int
    used: int
    waiting: float  # prefill: computed KV that waits or moves, on average
    busy: float  # share of the time
    tokens_per_s: float
    passed_per_s: float
    kv_free: int  # bytes
    kv_room: int  # bytes, the most that was ever free


class LinkPart(TypedDict):
    """One prefill's way to one decode."""

    prefill: str
    decode: str
    verified: bool
    problem: str
    bytes_per_s: int
    push_ms: float


@final
class GroupPart(TypedDict):
    """One group. `prefills` and `decodes` are wanted."""

    scenario: str
    name: str
    phase: str
    strategy: str
    canary: int
    revision: int
    prefills: int
    decodes: int
    prefill: list[InstancePart]
    decode: list[InstancePart]
    links: list[LinkPart]
    bytes_per_s: int


class TimesPart(TypedDict):
    """A time against its objective. `over`: the quantile lies beyond what is counted, at least at the number given."""

    slo_ms: int
    count: int
    within: float
    p50_ms: float
    p99_ms: float
    over: bool


class AdvicePart(TypedDict):
    """What the controller measures and wants."""

    mode: str
    prefill: int
    decode: int
    groups: int
    scarcer: str
    prefill_per_s: float
    decode_per_s: float
    phi: float
    prefill_s: float
    decode_s: float
    upgrade: str
    reasons: list[str]


class RevisionPart(TypedDict):
    """One revision of a scenario's model."""

    number: int
    model: str


class TrafficPart(TypedDict):
    """What becomes of a scenario's requests; counts are of the last minute."""

    known: bool  # whether a gateway has told of its traffic
    arriving_per_s: float
    finished_per_s: float
    tokens_per_s: float
    waiting: int
    open: int
    finished: int
    failed: int
    refused: int


@final
class ScenarioPart(TrafficPart):
    """One scenario without its groups, which are parts of their own; `groups` has their names in order."""

    name: str
    model: str
    engine: str
    version: int
    target: int
    revisions: list[RevisionPart]
    groups: list[str]
    prefill: int  # members that work
    decode: int
    per_group: list[int]  # wanted prefills and decodes of the first group
    success: float  # share of the finished among those that ended
    ttft: TimesPart
    tpot: TimesPart
    advice: AdvicePart | None


@final
class FleetPart(TypedDict):
    """Everything outside the groups, and who tells it."""

    monitor: str
    leading: bool
    orders: bool  # whether there are buttons
    ready: int
    total: int
    scenarios: list[str]
    standby: list[InstancePart]
    gateways: list[InstancePart]
    monitors: list[InstancePart]
    astray: list[InstancePart]  # workers in no group, most of them failed


Part = FleetPart | ScenarioPart | GroupPart
Snapshot = dict[str, Part]
"""By `fleet`, `scenario <name>`, `group <scenario> <group>`."""
