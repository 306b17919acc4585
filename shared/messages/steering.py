"""What the fleet is steered by: the traffic as gateways see it, orders to the leading monitor, and its answers."""

from typing import Annotated, Any, Final

import msgspec

from shared.messages.wire import Count, Epoch, Message, Name, Positive, Value

MOST_WORKERS: Final = 10_000
FRACTIONS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Upper bounds of the buckets of times, as fractions of the objective; one more bucket takes the rest."""
BUCKETS: Final = len(FRACTIONS) + 1

Buckets = Annotated[list[Count], msgspec.Meta(max_length=BUCKETS)]


class GroupTraffic(Value, frozen=True):
    """What became of the requests that one group served, since the gateway started."""

    group: Name
    finished: Count = 0
    failed: Count = 0  # attempts that its workers ended badly or lost
    ttft: Buckets = []  # first tokens by their time, from the request's arrival, in fractions of the SLO
    tpot: Buckets = []  # finished requests by their mean time per token after the first
    ttft_us: Count = 0  # sum
    e2e_us: Count = 0  # sum over finished ones, from acceptance by a prefill to the last token
    prefill_us: Count = 0  # sum over finished ones, from acceptance to the first token
    tokens: Count = 0  # generated


class Traffic(Message, frozen=True, tag="traffic"):
    """gateway -> monitor, about each second: one scenario's requests since the gateway started."""

    gateway: Name
    epoch: Epoch
    scenario: Name
    number: Positive  # grows with each message
    arrived: Count = 0
    refused: Count = 0  # by a gateway, before a worker had them: too late, too many
    prompt_tokens: Count = 0  # of the arrived
    waiting: Count = 0  # now, without a slot
    open: Count = 0  # now
    groups: Annotated[list[GroupTraffic], msgspec.Meta(max_length=1024)] = []


class ScaleOrder(Message, frozen=True, tag="order.scale"):
    """operator -> leading monitor, answered Told or Rejected: so many members or groups from now on; 0: as it is."""

    scenario: Name
    prefill: Annotated[int, msgspec.Meta(ge=0, le=MOST_WORKERS)] = 0  # of each group, or of the one named
    decode: Annotated[int, msgspec.Meta(ge=0, le=MOST_WORKERS)] = 0
    groups: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    group: str = ""
    dry_run: bool = False  # only tell what would be done


class UpgradeOrder(Message, frozen=True, tag="order.upgrade"):
    """operator -> leading monitor, answered Told or Rejected: run another model or other options, group after group."""

    scenario: Name
    model: str = ""  # empty: as it is
    options: dict[str, Any] = {}  # of the engine, over those that are
    canary: Annotated[int, msgspec.Meta(ge=0, le=50)] = 10  # percent of requests the first group gets for a trial
    trial_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 30.0
    back: bool = False  # to the revision before
    dry_run: bool = False


class ExplainOrder(Message, frozen=True, tag="order.explain"):
    """operator -> leading monitor, answered Told: what is measured, what would be done now, and why."""

    scenario: Name


class Told(Message, frozen=True, tag="told"):
    """leading monitor -> operator. `settled`: nothing is on its way any more, so `--wait` may return."""

    instance: Name
    text: str
    settled: bool = False
    revision: Count = 0  # that the scenario is to have


class Happening(Value, frozen=True):
    """One thing the fleet did or suffered, and why; the monitor keeps the last ones in Redis under `baton:events`."""

    at_ms: Count
    scenario: str
    kind: Name  # joined, lost, flip, scale, upgrade, ...
    text: str
