"""Dispatchers over a fleet of named workers, and requests brought to a stage of their life."""

from shared.policy.dispatch import Dispatcher
from shared.policy.dispatch_events import (
    DispatchRules,
    FirstToken,
    HandedOff,
    Offer,
    OfferAccepted,
)
from tests.unit.policy.builders import arrived, view_of


def dispatcher_of(*workers: str, free: int = 1, rules: DispatchRules | None = None) -> Dispatcher:
    return Dispatcher(view_of(*workers, free=free), rules)


def hold(dispatcher: Dispatcher, request_id: str, now: float = 0.0, **others: object) -> Offer:
    """Bring a request to the worker it is offered to."""
    offer = dispatcher.handle(arrived(request_id, **others), now)[0]  # type: ignore[arg-type]
    assert isinstance(offer, Offer)
    assert dispatcher.handle(OfferAccepted(request_id, offer.attempt, offer.instance), now) == []
    return offer


def stream(dispatcher: Dispatcher, request_id: str, decode: str = "d1", now: float = 0.0, **others: object) -> None:
    """Bring a request to the decode, its first token delivered."""
    offer = hold(dispatcher, request_id, now, **others)
    assert dispatcher.handle(FirstToken(request_id, offer.attempt), now) == []
    assert dispatcher.handle(HandedOff(request_id, offer.attempt, decode), now) == []
