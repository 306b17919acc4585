"""One fault under load: streams run, something is hurt; history, leaks and health are judged (I1, I2, I3, I5, I8)."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from shared.messages import Member, Role, ScaleOrder, ScenarioMap
from tests.faults.cluster import READY_S, Cluster
from tests.faults.cluster_process import Process
from tests.faults.history import History, check

STREAMS = 12
TOKENS = 80
FRESH = 6


async def trial(
    fleet: Cluster,
    hurt: Callable[[History], Awaitable[object]],
    *,
    seed: int,
    streams: int = STREAMS,
    tokens: int = TOKENS,
    begun: int = 3,
    quiet_s: float = 20.0,
) -> History:
    """Hurt something while streams run that have brought so many tokens; all must end well, and nothing may be left."""
    history = History()
    asks = [asyncio.ensure_future(_ask(history, fleet, seed, k, tokens)) for k in range(streams)]
    try:
        await history.flowing(streams, begun)
        await hurt(history)
        await asyncio.gather(*asks)
    finally:
        for one in asks:
            one.cancel()
    await judge(fleet, history, quiet_s=quiet_s)
    return history


async def judge(fleet: Cluster, history: History, *, failed: int = 0, quiet_s: float = 20.0) -> None:
    """Say what is wrong, if anything is; whoever failed is named. Fresh requests must be served."""
    assert check(history) == []
    assert len(history.failed) == failed, history.failed
    fresh = History()
    await asyncio.gather(*(_ask(fresh, fleet, -1, k, 6) for k in range(FRESH)))
    assert check(fresh) == []
    assert fresh.failed == []
    await fleet.quiet(quiet_s)


async def _ask(history: History, fleet: Cluster, seed: int, k: int, tokens: int) -> None:
    await history.ask(fleet.url(), f"{seed}-{k} " + "x" * (k * 37 % 300), tokens, seed=1000 * seed + k)


async def joined(fleet: Cluster, role: Role, name: str, *, failpoints: str = "", module: str | None = None) -> Process:
    """Start a worker, have a place for it, and wait until it is in the map and may be asked."""
    await place_for_one_more(fleet, role)
    process = await fleet.start(role, name, failpoints=failpoints, module=module)
    await fleet.until_ready(name)
    await in_the_map(fleet, role, name)
    return process


async def place_for_one_more(fleet: Cluster, role: Role) -> None:
    """Have the group want one more than there are; a worker that nobody wants becomes a standby."""
    found = await fleet.map()
    wanted = sum(group.prefills if role is Role.PREFILL else group.decodes for group in found.groups)
    alive = sum(one.role is role and one.alive for one in fleet.processes.values())
    if max(len(_members(found, role)), alive) >= wanted:
        await fleet.order(ScaleOrder("chat", **{role.value: wanted + 1}))


async def in_the_map(fleet: Cluster, role: Role, name: str) -> None:
    """Wait until a worker has joined."""
    deadline = time.monotonic() + READY_S
    while not any(member.instance == name and member.joined for member in _members(await fleet.map(), role)):
        assert time.monotonic() < deadline, f"{name} does not join: {await fleet.map()}"
        await asyncio.sleep(0.05)


def _members(found: ScenarioMap, role: Role) -> list[Member]:
    return [one for group in found.groups for one in (group.prefill if role is Role.PREFILL else group.decode)]
