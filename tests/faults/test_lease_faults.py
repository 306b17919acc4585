"""Leases while Redis, or the line to it, is hurt: no epoch goes back, no name has two holders, lost replies do no harm.

F11 and F12. Contenders are checked from outside: every call and its return are recorded, then the record is judged.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from redis.asyncio import Redis

from services.monitor.book import Book
from shared import keys
from shared.config import RedisSettings
from shared.errors import Unavailable
from shared.leases import Confirmed, Lease, Taken, open_lease_client
from shared.messages import Epoch, Group, InstanceRecord, Member, Role, ScenarioMap, State, decode, encode
from shared.tasks import Tasks
from tests.faults.wire import Wire
from tests.servers import RedisServer

TTL_S = 0.6
NAME = "wanted"


def across(server: RedisServer, wire: Wire) -> RedisSettings:
    return RedisSettings(url=f"redis://:{server.password}@127.0.0.1:{wire.port}/0")


@dataclass(frozen=True)
class Call:
    """One confirmation and what came back."""

    owner: str
    sent: float
    returned: float
    outcome: Confirmed


class Contender:
    """Wants the one lease, for ever; sometimes gives it up."""

    def __init__(self, server: RedisServer, wire: Wire, random: Random) -> None:
        self.wire = wire
        self.calls: list[Call] = []
        self._client = open_lease_client(across(server, wire), TTL_S)
        self.lease = Lease(self._client, NAME, TTL_S)
        self._random = random

    async def contend(self) -> None:
        while True:
            sent, owner = time.monotonic(), self.lease.owner
            try:
                outcome = await self.lease.confirm()
            except Unavailable:
                outcome = None
            if isinstance(outcome, Confirmed):
                self.calls.append(Call(owner, sent, time.monotonic(), outcome))
                if self._random.random() < 0.1:
                    await self.lease.release()
            await asyncio.sleep(TTL_S / 6 * (0.5 + self._random.random()))

    async def close(self) -> None:
        await self._client.aclose()


class Contest:
    """Three contenders, each with a line of its own to one Redis."""

    def __init__(self, contenders: list[Contender], server: RedisServer) -> None:
        self.contenders, self.server = contenders, server
        self.together = 0  # moments with more than one holder

    async def watch(self) -> None:
        while True:
            held = [contender.lease.held for contender in self.contenders]
            self.together += sum(held) > 1
            await asyncio.sleep(0.002)

    def calls(self) -> list[Call]:
        return sorted((call for one in self.contenders for call in one.calls), key=lambda call: call.returned)

    def judge(self) -> list[Epoch]:
        """Epochs never go back in real time, and none has two owners. All of them, in order."""
        calls = self.calls()
        owners: dict[Epoch, str] = {}
        for call in calls:
            assert owners.setdefault(call.outcome.epoch, call.owner) == call.owner, "an epoch has two owners"
        for call in calls:
            top = max((one.outcome.epoch for one in calls if one.returned < call.sent), default=(0, 0))
            assert call.outcome.epoch >= top, f"the epoch went back from {top} to {call.outcome.epoch}"
        return sorted(owners)

    async def healed(self) -> None:
        """Somebody gets the lease again."""
        for contender in self.contenders:
            await contender.wire.heal()
        since, counts = time.monotonic(), len(self.calls())
        while not any(call.sent > since for call in self.calls()[counts:]):
            assert time.monotonic() - since < 20, "nobody gets the lease after the fault"
            await asyncio.sleep(0.02)


@pytest.fixture
async def contest(own_redis_server: RedisServer) -> AsyncIterator[Contest]:
    async with AsyncExitStack() as stack:
        contenders = []
        for k in range(3):
            wire = await stack.enter_async_context(Wire(own_redis_server.port, seed=k))
            contenders.append(Contender(own_redis_server, wire, Random(k)))  # noqa: S311  # a seed must repeat
        contest = Contest(contenders, own_redis_server)
        works = Tasks("contest")
        for contender in contenders:
            works.spawn(contender.contend(), name="contend")
        works.spawn(contest.watch(), name="watch")
        yield contest
        assert await works.close() == []
        for contender in contenders:
            await contender.close()
        assert works.failures == 0


async def test_lines_that_lose_replies_fall_silent_and_break_never_make_two_holders(contest: Contest) -> None:
    random = Random(13)  # noqa: S311  # a seed must repeat
    for _ in range(12):
        wire = random.choice(contest.contenders).wire
        match random.choice(["lost reply", "silence", "one way", "cut", "delay"]):
            case "lost reply":
                wire.down.swallow = True
            case "silence":
                wire.hold()
            case "one way":
                wire.up.hold()
            case "cut":
                await wire.cut()
            case "delay":
                wire.up.delay_s = 0.08
        await asyncio.sleep(random.uniform(0.05, 0.5))
        if random.random() < 0.6:
            await wire.heal()
    await contest.healed()
    assert contest.together == 0
    assert len(contest.judge()) > 2


async def kill(server: RedisServer) -> None:
    server.kill()
    await asyncio.sleep(0.3)
    server.start()


async def freeze(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(TTL_S * 2)
    server.signal(signal.SIGCONT)


def command(*words: str) -> Callable[[RedisServer], Awaitable[None]]:
    async def do(server: RedisServer) -> None:
        client = Redis.from_url(server.settings().url)
        await client.execute_command(*words)
        await client.aclose()

    return do


FAULTS = {
    "kill -9, data kept": kill,
    "kill -9, data lost": kill,
    "SIGSTOP": freeze,
    "FLUSHALL": command("FLUSHALL"),
    "CLIENT KILL": command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
    "CLIENT PAUSE": command("CLIENT", "PAUSE", "900", "ALL"),
    "maxmemory": command("CONFIG", "SET", "maxmemory", "1"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_befalls_redis_epochs_never_go_back(contest: Contest, fault: str, tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        while not contest.calls():  # noqa: ASYNC110  # another process's clock
            await asyncio.sleep(0.01)
    if fault.endswith("lost"):
        for file in (tmp_path / "appendonlydir").glob("*"):
            contest.server.kill()
            file.unlink()
    await FAULTS[fault](contest.server)
    await asyncio.sleep(TTL_S)
    if fault == "maxmemory":
        await command("CONFIG", "SET", "maxmemory", "0")(contest.server)
    await contest.healed()
    epochs = contest.judge()
    boots = {boot for boot, _ in epochs}
    if fault in ("kill -9, data lost", "FLUSHALL"):
        assert len(boots) > 1, "Redis has forgotten, so the boot number must say so"
    else:
        assert contest.together == 0
        assert fault.startswith("kill") or len(boots) == 1


# ---- F12: done, and nobody hears of it ------------------------------------------------------------------------------


@pytest.fixture
async def wire(redis_server: RedisServer, redis_settings: RedisSettings) -> AsyncIterator[Wire]:
    async with Wire(redis_server.port) as wire:
        yield wire


@pytest.fixture
async def client(redis_server: RedisServer, wire: Wire) -> AsyncIterator[Redis]:
    client = open_lease_client(across(redis_server, wire), 1.0)
    await client.ping()
    yield client
    await client.aclose()


async def test_a_release_whose_reply_is_lost_has_freed_the_name_and_its_repetition_frees_nobody_elses(
    client: Redis, wire: Wire, redis_client: Redis
) -> None:
    lease, heir = Lease(client, NAME, 60.0), Lease(redis_client, NAME, 60.0)
    assert isinstance(await lease.confirm(), Confirmed)
    owner = lease.owner
    wire.down.swallow = True
    assert await lease.release() is False
    await wire.heal()
    taken = await heir.confirm()
    assert isinstance(taken, Confirmed)
    lease._process, lease._tenure = owner.split("|")[0], int(owner.split("|")[1])
    await lease.release()  # the same words again, late
    again = await heir.confirm()
    assert again == Confirmed(taken.epoch, created=False, sent_at=pytest.approx(0, abs=1e9))
    assert isinstance(await lease.confirm(), Taken)


async def test_a_renewal_whose_reply_is_lost_prolongs_the_lease_and_keeps_its_epoch(
    client: Redis, wire: Wire, redis_client: Redis
) -> None:
    lease = Lease(client, NAME, 60.0)
    first = await lease.confirm()
    assert isinstance(first, Confirmed)
    await redis_client.pexpire(keys.lease(NAME), 2000)
    wire.down.swallow = True
    with pytest.raises(Unavailable):
        await lease.confirm()
    assert await redis_client.pttl(keys.lease(NAME)) > 30_000
    await wire.heal()
    again = await lease.confirm()
    assert isinstance(again, Confirmed)
    assert (again.epoch, again.created) == (first.epoch, False)


def a_map(epoch: Epoch, version: int) -> ScenarioMap:
    return ScenarioMap("chat", version, epoch, [Group("main", [Member("p1", (1, 1))], [Member("d1", (1, 2))])])


async def test_a_map_whose_writing_is_not_confirmed_can_be_written_again_and_never_over_a_later_one(
    client: Redis, wire: Wire, redis_client: Redis
) -> None:
    old, later, key = a_map((5, 1), 3), a_map((5, 2), 1), keys.scenario_map("chat")
    wire.down.swallow = True
    with pytest.raises(Unavailable):
        await Book(client).write_map(old)
    await wire.heal()
    assert await redis_client.get(key) == encode(old)
    assert await Book(client).write_map(old)
    assert await Book(redis_client).write_map(later)
    assert not await Book(client).write_map(old)
    assert await redis_client.get(key) == encode(later)


async def test_a_failure_noted_without_an_answer_can_be_noted_again_and_never_over_a_later_life(
    client: Redis, wire: Wire, redis_client: Redis
) -> None:
    key = keys.instance("d1")
    await redis_client.set(key, encode(InstanceRecord("d1", Role.DECODE, State.READY, (5, 1))))
    wire.down.swallow = True
    with pytest.raises(Unavailable):
        await Book(client).write_failure("d1", (5, 1), "silent", None)
    await wire.heal()
    await Book(client).write_failure("d1", (5, 1), "silent", None)
    noted = decode(await redis_client.get(key), InstanceRecord)
    assert (noted.state, noted.reason) == (State.FAILED, "silent")
    await redis_client.set(key, encode(InstanceRecord("d1", Role.DECODE, State.READY, (5, 9))))
    await Book(client).write_failure("d1", (5, 1), "silent", None)
    assert decode(await redis_client.get(key), InstanceRecord).state is State.READY
