"""Who asks, and what was granted: the words in which the desk and the gate speak."""

from dataclasses import dataclass, field
from typing import Final

from shared.policy.limits import Limits

ANYONE: Final = "anonymous"
"""The tenant of clients without a key, where none is asked for."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that was let in. Holds no secret."""

    tenant: str = ANYONE
    key_id: str = ""  # for the audit log; empty where no key was needed
    scenarios: frozenset[str] | None = None  # that it may use; None: all
    priority: int = 0  # of its tenant, added to that of each request; smaller goes first
    weight: float = 1.0  # of its tenant, where capacity is contended

    def may_use(self, scenario: str) -> bool:
        """Whether its scopes cover a scenario."""
        return self.scenarios is None or scenario in self.scenarios


@dataclass(slots=True)
class Grant:
    """A share of the tenant's limits, held from admission until the request's end. `headers` go out with the answer."""

    caller: Caller
    headers: dict[str, str] = field(default_factory=dict)
    scenario: str = ""
    limits: Limits | None = None  # it is held against; None: the tenant has none
    id: str = ""
    streams: int = 1  # 0: it holds nothing; that it was made is all that counts
    tokens: int = 0  # set aside
    local: bool = False  # taken while Redis did not answer
    settled: bool = False
