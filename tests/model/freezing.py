"""The value of a graph of real objects: equal where two states have the same future.

Everything is taken in by default. What is left out is named here, each with its reason; so a field that is added later
can make the models larger, never wrong.
"""

from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum
from functools import partial
from types import MethodType
from typing import Any

import msgspec

from shared.messages import Status
from shared.policy.attempts import OpenRequest
from shared.policy.candidates import ScenarioPools
from shared.policy.deadlines import Deadlines
from shared.policy.dispatch_events import DispatchRules
from shared.policy.endings import Endings
from shared.policy.hedging import HedgeBudget
from shared.policy.pace import Pace
from shared.policy.pairing import Pairing
from shared.policy.placement import FleetView, ViewRules
from shared.policy.pool import Pool
from shared.policy.probing import Probing
from shared.policy.recent import Recent
from shared.policy.ring import Ring
from shared.policy.routes import Routes
from shared.policy.shares import Shares
from shared.policy.waiting import Waiting
from shared.policy.worker import Worker

NOTHING = (DispatchRules, ViewRules, Endings, Pace, Shares, HedgeBudget, Routes, Pairing, Ring, partial)
"""Rules never change; the endings keep nothing; one request shares the wait with nobody, and has fewer stalls than any
budget has hedges; routes know no preference where there is one group and no beginning was marked."""
LEFT_OUT: dict[type, frozenset[str]] = {
    Worker: frozenset({"tie", "turn", "penalties"}),  # order of equals; penalties last no time in the models
    FleetView: frozenset({"_turns"}),
    Probing: frozenset({"_heard", "_asked"}),  # whom to probe when: the models probe at any time
    Waiting: frozenset({"_passed"}),  # fairness between priorities
    ScenarioPools: frozenset({"told"}),  # the map of the models stays as it is
    OpenRequest: frozenset({"charged", "revision"}),  # fairness between tenants; one model
    Status: frozenset({"number"}),  # orders statuses of one epoch, which come in order in the models
}
Walk = Callable[[Any], Hashable]
Handler = Callable[[Any, Walk], Hashable]


def freeze(value: object) -> Hashable:
    """Return a hashable value of an object and of all it refers to; each object counts where it is met first."""
    met: set[int] = set()

    def walk(one: Any) -> Hashable:
        kind = type(one)
        handler = HANDLERS.get(kind)
        if handler is None:
            handler = HANDLERS[kind] = _handler_of(kind, one)
        if handler is _itself:
            return one  # type: ignore[no-any-return]
        if handler is not _in_order and handler is not _as_set:  # what cannot change has no identity
            if id(one) in met:
                return None
            met.add(id(one))
        return handler(one, walk)

    return walk(value)


def _itself(one: Any, _: Walk) -> Hashable:
    return one  # type: ignore[no-any-return]


def _handler_of(kind: type, one: object) -> Handler:
    if issubclass(kind, Enum):
        return _itself
    if kind in NOTHING:
        return lambda _one, _walk: None
    for base in kind.__mro__:
        if base in HANDLERS:
            return HANDLERS[base]
    left_out = LEFT_OUT.get(kind, frozenset())
    names = tuple(name for name in _fields(one) if name not in left_out)
    return lambda one, walk: tuple([walk(getattr(one, name)) for name in names])


def _fields(one: object) -> tuple[str, ...]:
    """Name the attributes of an object, whatever they are kept in."""
    if isinstance(one, msgspec.Struct):
        return one.__struct_fields__
    slots = tuple(name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ()))
    return slots + tuple(getattr(one, "__dict__", ()))


def _in_order(one: Any, walk: Walk) -> Hashable:
    return tuple([walk(part) for part in one])


def _as_set(one: Any, _: Walk) -> Hashable:
    return frozenset(one)


def _by_key(one: Any, walk: Walk) -> Hashable:
    """A default that was only looked at is as good as none."""
    return frozenset([(key, walk(one[key])) for key in one if not _empty(one[key])])


def _empty(one: object) -> bool:
    return isinstance(one, dict | Pool) and not len(one)


HANDLERS: dict[type, Handler] = {
    **dict.fromkeys((str, int, float, bool, bytes, type(None)), _itself),
    **dict.fromkeys((list, tuple, deque), _in_order),
    **dict.fromkeys((set, frozenset), _as_set),
    dict: _by_key,
    Deadlines: lambda one, _walk: frozenset(one._at.items()),
    Recent: lambda one, _walk: frozenset(one._values.items()),
    Pool: lambda one, _walk: frozenset((name, standing.tier) for name, standing in one._standings.items()),
    MethodType: lambda one, _walk: one.__name__,
}
