"""One open request at the dispatcher: where its current attempt is, and what became of the earlier ones."""

from dataclasses import dataclass, field
from enum import Enum, auto

from shared.errors import Code
from shared.policy.dispatch_events import Arrived, Cause, DispatchRules

NOBODYS_FAULT = frozenset({Code.OVERLOADED, Code.DRAINING, Code.NO_CAPACITY})
"""Failures by want of room or by an orderly leave: they say nothing against the request or the worker."""

REQUEST_TOKENS = 64
"""What a request costs beside its prompt, in prompt tokens: its slot, its offer, its hand-off."""

Rank = tuple[int, float, int]
"""Priority, deadline, arrival: who goes first among those that are otherwise equal."""


class Phase(Enum):
    """Where a request is."""

    WAITING = auto()  # at the gateway: no attempt lives anywhere
    OFFERED = auto()  # a worker was asked and has not answered
    HELD = auto()  # a worker has it


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a request gets no further attempt."""

    code: Code
    message: str
    cause: Cause


@dataclass(slots=True)
class OpenRequest:
    """A request until its one ending."""

    request_id: str
    scenario: str
    deadline: float
    expires: float
    priority: int
    due: float  # a worker must have it
    number: int  # of arrival
    arrived: float = 0.0
    tenant: str = ""
    weight: float = 1.0
    cost: int = REQUEST_TOKENS  # what a slot for it takes off its tenant's share
    charged: float = 0.0  # to its tenant, for the offer under way
    phase: Phase = Phase.WAITING
    attempt: int = -1  # of the last offer; every offer has its own
    instance: str = ""  # that was asked or has it
    since: float = 0.0  # when the instance got it
    cause: Cause = Cause.ARRIVED  # why it needs an offer
    accepted: bool = False  # by any worker, ever
    begun: bool = False  # the client has a token: no first-token deadline any more
    decoding: bool = False  # handed off: its prefill slot is settled
    failures: int = 0
    preemptions: int = 0
    deaths: set[str] = field(default_factory=set)  # workers that died with it
    avoid: set[str] = field(default_factory=set)  # rejected or failed it; others first, once

    @classmethod
    def of(cls, event: Arrived, number: int, now: float) -> "OpenRequest":
        """A request that has just arrived."""
        due = min(event.wait_by, event.deadline, event.expires)
        return cls(
            event.request_id,
            event.scenario,
            event.deadline,
            event.expires,
            event.priority,
            due,
            number,
            now,
            event.tenant,
            event.weight,
            event.tokens + REQUEST_TOKENS,
        )

    @property
    def rank(self) -> Rank:
        """Its place among its like."""
        return self.priority, self.due, self.number

    @property
    def ends_at(self) -> float:
        """When it ends if nothing happens."""
        if self.phase is Phase.HELD or self.begun:
            return self.expires
        return min(self.deadline, self.expires) if self.accepted else self.due

    def died_with(self, instance: str, now: float, rules: DispatchRules) -> None:
        """Count a worker's death against the request, unless it had long been running there.

        A request that kills does so soon after it came, at the latest the second time: then its replay starts just
        before the token that kills.
        """
        if not self.deaths or now - self.since < rules.poison_window_s:
            self.deaths.add(instance)

    def failed(self, code: Code, message: str, rules: DispatchRules) -> Verdict | None:
        """Count a failed attempt. A verdict when it was the last one."""
        if code in NOBODYS_FAULT:
            self.preemptions += 1
        else:
            self.failures += 1
        if len(self.deaths) >= rules.poison:
            return Verdict(
                Code.ENGINE_FAILED, f"{len(self.deaths)} workers died with this request; no other gets it", Cause.POISON
            )
        if self.failures >= rules.attempts or self.preemptions >= rules.preemptions:
            tried = self.failures + self.preemptions
            return Verdict(code, f"given up after {tried} failed attempts; the last: {message or code}", Cause.FAILED)
        return None
