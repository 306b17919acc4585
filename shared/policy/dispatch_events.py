"""What the dispatcher is told and what it asks for. One event or action, one class; times are monotonic seconds.

(request_id, attempt) names one offer: every offer has an attempt number of its own, also the one to the next candidate
after a rejection, so that a late answer can never be taken for another worker's.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

from msgspec import Struct

from shared.errors import Code
from shared.policy.world import BusDown, BusUp, MapSeen, NobodyThere, PulseSeen, StatusSeen, Tick

FEWEST: Final = "fewest_streams"
"""The route of an offer for which nothing speaks but that the worker is the idlest."""

# ---- events ----------------------------------------------------------------------------------------------------------


class Arrived(Struct, frozen=True):
    """A validated request wants a prefill. Ids are unique while the request is open."""

    request_id: str
    scenario: str
    tokens: int
    deadline: float  # the first token is due
    expires: float  # the request ends whatever its state
    priority: int = 0  # smaller goes first
    tenant: str = ""  # whose share of the wait it takes
    weight: float = 1.0  # of that share, beside those of other tenants
    wait_by: float = inf  # without any worker by then it is refused; only a first wait is so bounded
    attempt: int = -1  # the last that another gateway began of it: ours are greater
    begun: bool = False  # another gateway showed its client tokens: it waits as one that lost its worker
    prefix: tuple[int, ...] = ()  # chained hashes of the prompt's beginnings; see `affinity`

    @property
    def wanted_by(self) -> float:
        """When a worker must have it; one whose stream has begun may wait until it expires."""
        return self.expires if self.begun else min(self.wait_by, self.deadline, self.expires)


class OfferAccepted(Struct, frozen=True):
    """The worker holds a slot for the attempt."""

    request_id: str
    attempt: int
    instance: str


class OfferRejected(Struct, frozen=True):
    """The worker holds nothing. `retryable` False: no other worker will take it either."""

    request_id: str
    attempt: int
    instance: str
    code: Code
    message: str = ""
    retryable: bool = True


class OfferUnanswered(Struct, frozen=True):
    """No answer within the offer's timeout (or nobody listened, or the offer could not be sent): it may be held."""

    request_id: str
    attempt: int
    instance: str


class HandedOff(Struct, frozen=True):
    """`instance`, a decode, owns the attempt now: prefill said so, or the decode's frames showed it."""

    request_id: str
    attempt: int
    instance: str


class FirstToken(Struct, frozen=True):
    """A token of the request reached the client's stream: its first-token deadline is met for good."""

    request_id: str
    attempt: int


class Ended(Struct, frozen=True):
    """The attempt ended well, and so does the request."""

    request_id: str
    attempt: int


class AttemptFailed(Struct, frozen=True):
    """The worker said Failed, or the gateway found a gap in the indexes. `retryable`: another attempt may succeed."""

    request_id: str
    attempt: int
    code: Code
    message: str = ""
    retryable: bool = True


class Stalled(Struct, frozen=True):
    """The attempt brought no token for longer than the progress deadline. A question: its tokens still count.

    Without an Offer in answer the attempt stays as it is; ask again after another such time.
    """

    request_id: str
    attempt: int


class CancelledByClient(Struct, frozen=True):
    """The client left or asked to stop. The request is over for the dispatcher: no Refuse follows."""

    request_id: str


AttemptEvent = (
    OfferAccepted | OfferRejected | OfferUnanswered | HandedOff | FirstToken | Ended | AttemptFailed | Stalled
)  # fmt: skip
Event = (
    Arrived | CancelledByClient | AttemptEvent | StatusSeen | MapSeen | PulseSeen | NobodyThere | BusDown | BusUp | Tick
)  # fmt: skip

# ---- actions ---------------------------------------------------------------------------------------------------------


class Cause(StrEnum):
    """Why an action is asked for; for spans, logs and metrics."""

    ARRIVED = "arrived"
    REJECTED = "rejected"
    UNANSWERED = "unanswered"
    FAILED = "failed"  # the attempt failed by its worker's own word, or by a gap
    STALLED = "stalled"
    LOST = "lost"  # with its worker
    CANCELLED = "cancelled"
    DEADLINE = "deadline"  # nobody accepted in time, or could not have
    EXPIRED = "expired"
    FULL = "full"  # the waiting queue
    DISPLACED = "displaced"  # from a full waiting queue, by one with a better claim
    CROWDED = "crowded"  # the table of open requests is full
    ABSENT = "absent"  # the scenario has no worker
    POISON = "poison"  # died with too many workers


class Offer(Struct, frozen=True):
    """Send PrefillRequest to the instance; answer with OfferAccepted, OfferRejected or OfferUnanswered.

    The prompt to send is the client's, then every token delivered so far. Index checks restart for this attempt.
    """

    request_id: str
    attempt: int
    instance: str
    cause: Cause
    route: str = FEWEST  # why there

    @property
    def kind(self) -> str:
        """The route's first word, which is one of few."""
        return self.route.replace(",", " ").split(" ", 1)[0]


class Withdraw(Struct, frozen=True):
    """Publish Cancel: whoever holds this attempt, or an older one, drops it. Always comes before the next Offer.

    What still comes of these attempts may be shown to the client until the next Offer of the request, not after it:
    FirstToken and Ended are then heard as ever.
    """

    request_id: str
    attempt: int
    cause: Cause


class Refuse(Struct, frozen=True):
    """The request's one bad ending: tell the client. The dispatcher has forgotten the request."""

    request_id: str
    code: Code
    message: str
    cause: Cause
    retry_after_s: float | None = None  # set where trying again later makes sense


Action = Offer | Withdraw | Refuse


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """Bounds of the dispatcher."""

    max_waiting: int = 1000  # new requests waiting for a slot, per scenario
    max_open: int = 20_000  # requests in every state
    attempts: int = 4  # failed ones after which a request is given up
    losses: int = 64  # attempts that brought tokens and then lost their worker or stood still: nobody's fault either
    preemptions: int = 16  # attempts ended by lack of room or by a drain: nobody's fault, so more of them
    poison: int = 2  # a request that died with so many workers is not given to another
    poison_window_s: float = 2.0  # after some progress a later death counts only if it came so soon
    trial_s: float = 1.0  # for which a suspect must go on well at a decode
    grace_s: float = 10.0  # a scenario without any worker refuses new requests after so long
    replay_grace_s: float = 60.0  # and gives up those whose stream had begun after so long
    absent_retry_s: float = 5.0  # Retry-After where there is no worker
    busy_retry_s: float = 1.0  # Retry-After where all are busy and nothing better is known
    min_hedges: int = 8  # requests that may leave workers where they stand still, per scenario, in a window
    hedge_share: float = 0.5  # or this share of the scenario's open requests, where that is more
    hedge_window_s: float = 10.0
    ageing_s: float = 5.0  # a priority whose oldest request has waited for so long
    ageing_turn: int = 4  # gets every so many-th slot, whatever waits before it
    lookahead: int = 8  # waiting requests examined for one that suits a free worker
