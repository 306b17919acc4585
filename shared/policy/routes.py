"""Which prefill a request is to be offered to, and why that one.

Owns the order of preference: the groups first (a stream's revision, canary, strategy), then the prefill within them (a
known beginning, the one that is being filled, everybody's place for a beginning, the fewest streams). A preference
never makes a request wait while another prefill that may have it is free.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.messages import Group, Role
from shared.policy.affinity import Affinity
from shared.policy.attempts import OpenRequest
from shared.policy.dispatch_events import FEWEST
from shared.policy.partition import Names, Partition
from shared.policy.placement import FleetView
from shared.policy.pool import Standing, Tier

RING_STEPS: Final = 16
"""Instances looked at behind a beginning's place."""


@dataclass(frozen=True, slots=True)
class RouteRules:
    """How one scenario's requests find their prefill."""

    fill: bool = False  # keep feeding the one fed last, while it has a free slot (P/D-Serve's on-demand forwarding)
    affinity: bool = False
    slack: int = 1  # streams that the holder of a beginning may have more than the idlest
    local_tokens: int = 0  # prompts with fewer tokens to compute may go to a decode; 0: none


class Choice(NamedTuple):
    """A worker and why it. The first word of `route` is one of few."""

    instance: str
    route: str = FEWEST
    way: str = ""  # why its group
    local: bool = False  # a decode, to compute the prompt itself


class Way(NamedTuple):
    """Groups that are asked alike, and why these; no groups: all."""

    why: str
    groups: Names = ()


EVERYWHERE: Final = Way("")
_DEFAULT: Final = RouteRules()


class Routes:
    """Looks at the view and changes nothing there; remembers whom it fed last."""

    def __init__(self, view: FleetView, rules: Mapping[str, RouteRules] | None = None) -> None:
        self.affinity = Affinity(view.epoch)
        self._view = view
        self._candidates = view.candidates
        self._rules = dict(rules or {})  # by scenario
        self._parted: dict[str, tuple[Mapping[str, Group], Partition | None]] = {}
        self._preferred: dict[str, Names] = {}
        self._fed: dict[tuple[str, str], str] = {}  # by scenario and way

    def rules(self, scenario: str) -> RouteRules:
        """How a scenario's requests find their prefill."""
        return self._rules.get(scenario, _DEFAULT)

    def exist(self, scenario: str) -> bool:
        """Whether there is anybody who could compute a prompt of the scenario, now or later."""
        if self._candidates.exists(scenario, Role.PREFILL, ""):
            return True
        return self.rules(scenario).local_tokens > 0 and self._candidates.exists(scenario, Role.DECODE, "")

    def prefer(self, scenario: str, strategies: Names) -> None:
        """Ask the groups of these strategies first from now on, in this order."""
        self._preferred[scenario] = strategies

    def parted(self, scenario: str) -> Partition | None:
        """Say what sets a scenario's groups apart; None: nothing does."""
        groups = self._candidates.groups(scenario)
        known = self._parted.get(scenario)
        if known is None or known[0] is not groups:
            known = self._parted[scenario] = (groups, Partition.of(groups))
        return known[1]

    def pick(self, request: OpenRequest, exclude: Collection[str] = ()) -> Choice | None:
        """Choose the prefill with room that suits best; None: none that it may go to has room."""
        partition = self.parted(request.scenario)
        if partition is None:
            first = self._candidates.first(request.scenario, Role.PREFILL, "", exclude)
            return None if first is None else self._within(request, first, EVERYWHERE, exclude)
        last: tuple[Standing, Way] | None = None
        for way in self._ways(request, partition):
            first = self._candidates.first_of(request.scenario, way.groups, exclude)
            if first is not None and first.tier is Tier.FREE:
                return self._within(request, first, way, exclude)
            last = last or (None if first is None else (first, way))
        if last is None:
            return None
        anybody = self._candidates.first(request.scenario, Role.PREFILL, "", exclude)
        left = anybody is not None and anybody.tier is Tier.SUSPECT  # suspects, where nobody else is left
        return self._within(request, *last, exclude) if left else None

    def kind(self, request: OpenRequest) -> tuple[str, int | None]:
        """Say what decides where a request may go; those of one kind find room at the same workers."""
        partition = self.parted(request.scenario)
        return ("", None) if partition is None else (partition.drawn(request.request_id), request.revision)

    def took(self, request: OpenRequest, choice: Choice) -> None:
        """Note that the request is being offered there."""
        if not choice.local and self.rules(request.scenario).fill:
            self._fed[request.scenario, choice.way] = choice.instance

    def learn(self, request: OpenRequest) -> None:
        """Note that the worker that it was offered to has accepted it."""
        if request.prefix:
            self.affinity.learn(request.scenario, request.prefix, request.instance)

    def revision_at(self, request: OpenRequest, otherwise: int | None) -> int | None:
        """Say which revision of the model runs where a request is, if its group is in the map."""
        group = self._candidates.groups(request.scenario).get(self._view.group(request.instance))
        return otherwise if group is None else group.revision

    def _ways(self, request: OpenRequest, partition: Partition) -> Iterator[Way]:
        """Name the groups that a request may go to, the preferred ones first."""
        if request.revision is not None and len(partition.revisions) > 1:
            yield Way(f"revision {request.revision}", partition.revisions.get(request.revision, ()))
        if drawn := partition.drawn(request.request_id):
            yield Way("canary", (drawn,))
        if len(partition.strategies) > 1:
            for strategy in self._preferred.get(request.scenario, ()):
                yield Way(f"strategy {strategy}", partition.strategies.get(strategy, ()))
        yield Way("", partition.ordinary)
        scenario = request.scenario
        if not any(self._candidates.exists(scenario, Role.PREFILL, group) for group in partition.ordinary):
            yield Way("canary", tuple(name for name, _ in partition.canaries))

    def _within(self, request: OpenRequest, first: Standing, way: Way, exclude: Collection[str]) -> Choice:
        """Look for one that suits better than the first by its streams, and is not noticeably busier."""
        route, instance = FEWEST, first.instance
        if first.tier is Tier.FREE:
            for name, why, slack in self._better(request, way):
                standing = self._candidates.standing(request.scenario, Role.PREFILL, name)
                if standing is None or standing.tier is not Tier.FREE or name in exclude:
                    continue
                if way.groups and self._view.group(name) not in way.groups:
                    continue
                if slack is None or standing.streams <= first.streams + slack:
                    route, instance = why, name
                    break
        if way.why:
            route = way.why if route == FEWEST else f"{way.why}, {route}"
        return Choice(instance, route, way.why)

    def _better(self, request: OpenRequest, way: Way) -> Iterator[tuple[str, str, int | None]]:
        """Name whom to prefer, why, and how many more streams than the idlest it may have."""
        rules, scenario = self.rules(request.scenario), request.scenario
        prefix = request.prefix if rules.affinity else ()
        if prefix:
            for known in self.affinity.known(scenario, prefix):
                yield known.instance, f"prefix {known.tokens}", rules.slack
        if rules.fill and (fed := self._fed.get((scenario, way.why))):
            yield fed, "fill", None
        if prefix:
            for instance in self._candidates.ring(scenario).walk(prefix[0], RING_STEPS):
                yield instance, "home", 0
