"""What is simulated: scenarios with groups of instances, and the settings that services have in the configuration.

Defaults are those of the product; `tests/unit/simulator/cluster/test_spec.py` holds the two together.
"""

from dataclasses import dataclass, field
from typing import Final

from shared.policy.dispatch_events import DispatchRules
from shared.policy.routes import RouteRules
from simulator.cluster.batch import CHUNK
from simulator.engine.profile import Profile

STAGING_BYTES: Final = 1 << 62
"""Of KV on its way, at each worker: no bound of its own; slots bound it."""


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """Prefills and decodes that may push to each other. Without prefills its decodes compute prompts, too."""

    name: str
    prefill: int
    decode: int
    profile: Profile
    decode_profile: Profile | None = None  # where it is another one
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class ScenarioSpec:
    """A kind of traffic."""

    name: str
    groups: tuple[GroupSpec, ...]
    ttft_s: float = 2.0  # objectives
    tpot_s: float = 0.2
    prefill_slots: int = 8
    queue_s: float = 30.0
    first_token_s: float = 60.0
    timeout_s: float = 600.0
    routes: RouteRules = field(default_factory=RouteRules)
    block_tokens: int = 512  # of the workload's block ids
    cache_blocks: int | None = 0  # of that size that a prefill's prefix cache holds; None: all, 0: there is no cache
    chunk: int = CHUNK  # prompt tokens beside a decode step, where decodes compute prompts
    alone: bool = False  # there: prompts have steps for themselves, and decoding waits


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """Everything, as an operator would configure it."""

    scenarios: tuple[ScenarioSpec, ...]
    gateways: int = 1
    rules: DispatchRules = field(default_factory=DispatchRules)
    message_s: float = 0.0005  # one message from sender to its handler's end
    heartbeat_s: float = 0.5
    misses: int = 3
    offer_timeout_s: float = 1.0
    progress_s: float = 10.0
    push_timeout_s: float = 10.0
    decode_waiting: int = 4  # KV buffers that wait for a place in a batch
    staging_bytes: int = STAGING_BYTES
    seed: int = 0
