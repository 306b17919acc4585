"""How near a fleet is to the edge: the same fleet under other traffic and other objectives, and its neighbours."""

from dataclasses import dataclass, replace

from simulator.planner.demand import longer, share_of
from simulator.planner.search import Fleet, Search
from simulator.planner.trial import Group, tried


@dataclass(frozen=True, slots=True)
class Near:
    """One change, and the share that then meets the objectives."""

    what: str
    share: float
    price: float


def sensitivity(search: Search, fleet: Fleet) -> list[Near]:
    """What other rates, lengths, objectives and sizes make of it."""
    part, group, batch, aims = search.part(fleet.groups), fleet.group, fleet.batch, search.aims
    found = []
    for text, share in (("20 % less traffic", 0.8), ("20 % more traffic", 1.2), ("half as much again", 1.5)):
        arrivals = share_of(part, share, search.seed)
        found.append(Near(text, search.trial(group, arrivals, batch).share, fleet.price))
    for text, prompt, answer in (("prompts half as long again", 1.5, 1.0), ("answers half as long again", 1.0, 1.5)):
        found.append(
            Near(text, search.trial(group, longer(part, prompt=prompt, answer=answer), batch).share, fleet.price)
        )
    for text, ttft, tpot in (("half the TTFT", 0.5, 1.0), ("three quarters of the TPOT", 1.0, 0.75)):
        tighter = replace(aims, ttft_s=ttft * aims.ttft_s, tpot_s=tpot * aims.tpot_s)
        found.append(Near(text, tried(group, part, tighter, batch, search.cache).share, fleet.price))
    return found + _neighbours(search, fleet)


def _neighbours(search: Search, fleet: Fleet) -> list[Near]:
    group = fleet.group
    steps = (("a prefill", 1, 0), ("a decode", 0, 1))
    found = []
    for text, prefill, decode in steps:
        for word, sign in (("more", 1), ("fewer", -1)):
            other = Group(group.profile, group.prefill + sign * prefill, group.decode + sign * decode)
            if min(other.prefill, other.decode) > 0:
                share = search.found(other, fleet.groups, fleet.batch).share
                found.append(Near(f"{text} {word} in each group", share, fleet.groups * other.price))
    if fleet.groups > 1:
        fewer = search.found(group, fleet.groups - 1, fleet.batch).share
        found.append(Near("a group fewer", fewer, (fleet.groups - 1) * group.price))
    lost = Group(group.profile, group.prefill, group.decode - 1) if group.decode > 1 else None
    if lost is None and group.decode == 1:
        found.append(Near("a lost decode ends the group until it is replaced", 0.0, fleet.price))
    if group.prefill == 1:
        found.append(Near("a lost prefill ends the group until it is replaced", 0.0, fleet.price))
    return found
