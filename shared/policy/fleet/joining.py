"""When a member has joined: every pair of prefill and decode that it is part of was verified (P/D-Serve, section 3.2).

Owns who waits for which pairs, and for how long. Whoever has joined stays joined under its epoch, whatever is said or
not said later: only a newcomer is ever found unreachable.
"""

from collections.abc import Iterator

from shared.messages import Epoch, GroupPhase, Links, Role
from shared.policy.deadlines import Deadlines
from shared.policy.fleet.events import FleetRules, Place
from shared.policy.fleet.groups import Groups, Seat
from shared.policy.fleet.links_seen import LinksHeard
from shared.policy.fleet.plans import GroupKey, Plans

SETTLED = (GroupPhase.OPEN, GroupPhase.CLOSING)


Waiter = tuple[str, Epoch]


class Joining:
    """Lets members join: in a new group all wait for all, in an open one a newcomer for those that have joined."""

    def __init__(self, groups: Groups, plans: Plans, rules: FleetRules) -> None:
        self._groups = groups
        self._plans = plans
        self._rules = rules
        self._links = LinksHeard()
        self._limits: Deadlines[Waiter] = Deadlines()  # of those that wait for pairs
        self._order: dict[Waiter, int] = {}  # the same; who came later has the higher number
        self._came = 0

    def see(self, links: Links) -> bool:
        """Take in what a prefill says; whether it is anything new."""
        return self._links.see(links)

    def evaluate(self, key: GroupKey, now: float) -> list[str]:
        """Let all members of a group join that can; who did."""
        joined: list[str] = []
        more = self._groups.unjoined(key) > 0
        while more:
            more = False
            for instance, seat, place in list(self._waiting(key)):
                if self._may_join(key, instance, seat, place):
                    self._groups.join(instance)
                    self._drop((instance, seat.epoch))
                    joined.append(instance)
                    more = True
                elif not self._peers(key, place):
                    self._drop((instance, seat.epoch))
                elif (instance, seat.epoch) not in self._limits:
                    self._wait((instance, seat.epoch), now)
        return joined

    def unreachable(self, now: float) -> list[str]:
        """Name those whose pairs were not verified in time, of each group the worst; the rest get their time again."""
        groups: dict[GroupKey, list[Waiter]] = {}
        for waiter in self._limits.due(now):
            instance, epoch = waiter
            place = self._groups.place(instance)
            seat = None if place is None else self._groups.seats(place).get(instance)
            if place is None or seat is None or seat.joined or seat.epoch != epoch:
                self._drop(waiter)
            else:
                groups.setdefault((place.scenario, place.group), []).append(waiter)
        lost = (self._judge(key, late, now) for key, late in groups.items())
        return [instance for instance in lost if instance is not None]

    def restart(self, now: float) -> None:
        """Give all who wait their full time again: nothing could be heard."""
        for waiter in self._order:
            self._limits.set(waiter, now + self._rules.verify_s)

    def next_deadline(self) -> float | None:
        """Say when `unreachable` should be asked next."""
        return self._limits.next()

    def _judge(self, key: GroupKey, late: list[Waiter], now: float) -> str | None:
        worst = self._worst(key, late)
        for waiter in late:
            if waiter != worst:
                self._limits.set(waiter, now + self._rules.verify_s)
        if worst is None:
            return None
        self._drop(worst)
        if self._better_than_none(key, worst[0]):
            self._groups.join(worst[0])
            return None
        return worst[0]

    def _drop(self, waiter: Waiter) -> None:
        self._limits.drop(waiter)
        self._order.pop(waiter, None)

    def _wait(self, waiter: Waiter, now: float) -> None:
        self._limits.set(waiter, now + self._rules.verify_s)
        self._came += 1
        self._order[waiter] = self._came

    def _waiting(self, key: GroupKey) -> Iterator[tuple[str, Seat, Place]]:
        for role in (Role.PREFILL, Role.DECODE):
            place = Place(*key, role)
            for instance, seat in self._groups.seats(place).items():
                if not seat.joined:
                    yield instance, seat, place

    def _peers(self, key: GroupKey, place: Place) -> list[tuple[str, Epoch]]:
        """Name those of the other role that a newcomer must reach or be reached by."""
        seats = self._groups.seats(_across(place))
        forming = self._groups.phase(key) not in SETTLED
        everyone = forming or not self._groups.joined(_across(place))
        return [(name, seat.epoch) for name, seat in seats.items() if everyone or seat.joined]

    def _may_join(self, key: GroupKey, instance: str, seat: Seat, place: Place) -> bool:
        peers = self._peers(key, place)
        if not peers:
            return self._plans.wanted(_across(place)) == 0 and not self._groups.seats(_across(place))
        return not self._open_pairs(key, instance, seat, place)

    def _open_pairs(self, key: GroupKey, instance: str, seat: Seat, place: Place) -> list[str]:
        """Name the peers with which the pair is not verified. One whom nobody reaches is not the newcomer's fault."""
        open_pairs: list[str] = []
        for name, epoch in self._peers(key, place):
            if place.role is Role.PREFILL:
                verified = self._links.verified(instance, seat.epoch, name, epoch)
                verified = verified or self._out_of_reach(key, name, epoch, besides=instance)
            else:
                verified = self._links.verified(name, epoch, instance, seat.epoch)
            if not verified:
                open_pairs.append(name)
        return open_pairs

    def _out_of_reach(self, key: GroupKey, decode: str, epoch: Epoch, *, besides: str) -> bool:
        """Whether prefills that have joined try to reach this decode in vain, all that speak of it."""
        prefills = self._groups.seats(Place(*key, Role.PREFILL))
        others = [(name, one.epoch) for name, one in prefills.items() if one.joined and name != besides]
        if any(self._links.verified(name, its, decode, epoch) for name, its in others):
            return False
        return any(self._links.failed(name, its, decode, epoch) for name, its in others)

    def _worst(self, key: GroupKey, late: list[Waiter]) -> Waiter | None:
        """Name the one with the most pairs that fail; of several the one that came last. None: nobody says so."""
        worst, most = None, 0
        for waiter in sorted(late, key=self._order.__getitem__):
            place = self._groups.place(waiter[0])
            if place is None:
                continue
            open_pairs = self._open_pairs(key, waiter[0], self._groups.seats(place)[waiter[0]], place)
            if place.role is Role.DECODE:  # it is told by others that it fails; their silence is theirs
                seats = self._groups.seats(_across(place))
                open_pairs = [name for name in open_pairs if self._links.speaks(name, seats[name].epoch)]
            if open_pairs and len(open_pairs) >= most:
                worst, most = waiter, len(open_pairs)
        return worst

    def _better_than_none(self, key: GroupKey, instance: str) -> bool:
        """Whether it is to join though a pair fails: it reaches some that serve, and nobody of its role does."""
        place = self._groups.place(instance)
        if place is None or self._groups.joined(place) or not self._groups.joined(_across(place)):
            return False
        seat = self._groups.seats(place)[instance]
        return len(self._open_pairs(key, instance, seat, place)) < len(self._peers(key, place))


def _across(place: Place) -> Place:
    role = Role.DECODE if place.role is Role.PREFILL else Role.PREFILL
    return Place(place.scenario, place.group, role)
