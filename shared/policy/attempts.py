"""One open request at the dispatcher: where its current attempt is, and what became of the earlier ones."""

from dataclasses import dataclass
from enum import Enum, auto

from msgspec import Struct

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


class OpenRequest(Struct):
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
    tokens: int = 0  # of the prompt
    prefix: tuple[int, ...] = ()
    charged: float = 0.0  # to its tenant, for the offer under way
    phase: Phase = Phase.WAITING
    attempt: int = -1  # of the last offer; every offer has its own
    instance: str = ""  # that was asked or has it
    since: float = 0.0  # when the instance got it
    cause: Cause = Cause.ARRIVED  # why it needs an offer
    accepted: bool = False  # by any worker, ever, also of another gateway
    begun: bool = False  # the client has a token: no first-token deadline any more
    progress: bool = False  # the last attempt brought a token
    decoding: bool = False  # handed off: its prefill slot is settled
    local: bool = False  # a decode has it that is to compute the prompt, too
    revision: int | None = None  # of the model that brought the last token, where that is known
    failures: int = 0
    losses: int = 0  # attempts lost after progress
    preemptions: int = 0
    deaths: frozenset[str] = frozenset()  # workers that died with it, and perhaps of it
    suspect: bool = False  # of having killed them, as others are
    condemned: bool = False  # it did
    avoid: frozenset[str] = frozenset()  # rejected or failed it; others first, once

    @classmethod
    def of(cls, event: Arrived, number: int, now: float) -> "OpenRequest":
        """A request that has just arrived."""
        return cls(
            event.request_id,
            event.scenario,
            event.deadline,
            event.expires,
            event.priority,
            event.wanted_by,
            number,
            now,
            event.tenant,
            event.weight,
            event.tokens,
            event.prefix,
            attempt=event.attempt,
            accepted=event.begun,
            begun=event.begun,
        )

    @property
    def cost(self) -> int:
        """What a slot for it takes off its tenant's share."""
        return self.tokens + REQUEST_TOKENS

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
        """Count a worker's death against the request: the first always, a later one unless all went well there.

        A request that kills does so soon after it came, at the latest the second time: then its replay starts just
        before the token that kills. One that went on well for a while is innocent, wherever it is when workers die.
        """
        if not self.deaths or not self.progress or now - self.since < rules.poison_window_s:
            self.deaths |= {instance}

    def failed(self, why: Verdict, rules: DispatchRules) -> Verdict | None:
        """Count an attempt that is over. A verdict when it was the last one."""
        if why.code in NOBODYS_FAULT:
            self.preemptions += 1
        elif self.progress and (why.code is Code.WORKER_LOST or why.cause in (Cause.LOST, Cause.STALLED)):
            self.losses += 1
        else:
            self.failures += 1
        if self.condemned:
            text = f"{len(self.deaths)} workers died with this request; no other gets it"
            return Verdict(Code.ENGINE_FAILED, text, Cause.POISON)
        spent = (
            self.failures >= rules.attempts
            or self.losses >= rules.losses
            or self.preemptions >= rules.preemptions
        )  # fmt: skip
        if not spent:
            return None
        tried = self.failures + self.losses + self.preemptions
        text = f"given up after {tried} failed attempts; the last: {why.message or why.code}"
        return Verdict(why.code, text, Cause.FAILED)
