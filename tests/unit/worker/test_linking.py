"""Ways between a prefill and its decodes, verified by pushes that are of no request and leave nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from shared.errors import BatonError, Code, KvRefused
from shared.messages import (
    Epoch,
    Finished,
    Group,
    KvGrant,
    Link,
    LinkCheck,
    Links,
    Member,
    Rejected,
    Role,
    ScenarioMap,
    State,
    Status,
    Stopping,
    decode,
)
from shared.tasks import Tasks
from tests.fakes import a_request
from tests.unit.worker.relay import EPOCH, SUBJECTS, Relay, relay, until
from tests.unit.worker.scripted import INFO


@dataclass
class Ways:
    """A relay whose prefill verifies its ways, and what the monitor hears of them."""

    relay: Relay
    told: list[Links] = field(default_factory=list)

    @property
    def links(self) -> dict[str, Link]:
        return {link.decode: link for link in self.told[-1].links} if self.told else {}

    async def verified(self, *decodes: str) -> None:
        await until(lambda: all(name in self.links and self.links[name].verified for name in decodes))

    async def problem(self, decode: str) -> str:
        await until(lambda: decode in self.links and self.links[decode].problem)
        return self.links[decode].problem

    async def ask(self, check: LinkCheck) -> KvGrant | Rejected:
        subject = SUBJECTS.decode("chat", "d1")
        answer: KvGrant | Rejected = await self.relay.gateway.bus.request(
            subject, check, KvGrant | Rejected, timeout_s=5.0
        )
        return answer


@asynccontextmanager
async def linked(*decodes: str, started: bool = True, broken: BatonError | None = None) -> AsyncIterator[Ways]:
    async with relay(decodes=decodes or ("d1",)) as r:
        r.way.breaks = [] if broken is None else [broken]
        ways, ready, tasks = Ways(r), asyncio.Event(), Tasks("linking")
        await r.gateway.bus.subscribe(SUBJECTS.links("chat"), lambda d: ways.told.append(decode(d.data, Links)))
        _ = tasks.spawn(r.prefill.linking.run(ready), name="links")
        if started:
            ready.set()
        yield ways
        await tasks.close()
        await r.quiet()


def asked(number: int = 1, **changes: object) -> LinkCheck:
    made: dict[str, object] = {"fingerprint": INFO.fingerprint, "kv_bytes": INFO.block_bytes, **changes}
    return LinkCheck(prefill="p1", epoch=EPOCH, number=number, **made)  # type: ignore[arg-type]


async def test_every_decode_of_the_group_is_verified_by_one_push_and_nothing_stays_held() -> None:
    async with linked("d1", "d2") as ways:
        await ways.verified("d1", "d2")
        assert ways.relay.way.pushes == 2
        await ways.relay.quiet()
        assert list(ways.links.values()) == [Link("d1", EPOCH, verified=True), Link("d2", EPOCH, verified=True)]
        assert ways.relay.metric("p1", "baton_worker_links_verified") == 2


async def test_a_prefill_that_is_not_ready_verifies_and_tells_nothing() -> None:
    async with linked(started=False) as ways:
        await ways.relay.gateway.bus.flush(1.0)
        assert (ways.told, ways.relay.way.pushes) == ([], 0)


async def test_a_decode_of_another_group_is_nobody_to_verify_and_one_that_has_not_joined_is() -> None:
    async with linked("d1", "d2", "d3") as ways:
        groups = [
            Group("main", [Member("p1", EPOCH)], [Member("d1", EPOCH), Member("d2", EPOCH, joined=False)]),
            Group("main-2", [], [Member("d3", EPOCH)]),
        ]
        ways.relay.standings["p1"].peers.learn(ScenarioMap("chat", 2, EPOCH, groups))
        await ways.verified("d1", "d2")
        assert set(ways.links) == {"d1", "d2"}


async def test_another_model_is_refused_and_the_problem_is_told() -> None:
    async with linked("d1", "d2", started=False) as ways:
        ways.relay.engine("d2").become(replace(INFO, fingerprint="another"))
        answer = await ways.ask(asked(fingerprint="another"))
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retryable) == (Code.KV_REFUSED, False)
    async with linked("d1", "d2") as ways:
        ways.relay.engine("d2").become(replace(INFO, fingerprint="another"))
        assert await ways.problem("d2") == "d2 runs another model, KV layout or data type"
        await ways.verified("d1")


async def test_a_decode_that_is_full_refuses_for_the_moment_and_takes_the_check_when_it_has_room() -> None:
    async with linked(started=False) as ways:
        arena = ways.relay.standings["d1"].arena
        full = arena.reserve(arena.size)
        answer = await ways.ask(asked())
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retryable) == (Code.OVERLOADED, True)
        full.release()
        granted = [await ways.ask(asked(number)) for number in range(9)]
        assert [isinstance(one, KvGrant) for one in granted] == [True] * 8 + [False]
        for push in list(ways.relay.way.granted.values()):
            push.cancel()


async def test_a_check_takes_no_slot() -> None:
    async with linked() as ways:
        r = ways.relay
        r.way.may_push.clear()
        await until(lambda: r.way.pushes)
        for load in (r.prefill.load(), r.decodes["d1"].load()):
            assert load.free == load.slots > 0
        r.way.may_push.set()
        await ways.verified("d1")


async def test_who_drains_or_speaks_of_the_past_or_of_another_size_is_refused() -> None:
    async with linked(started=False) as ways:
        r = ways.relay
        answer = await ways.ask(asked(kv_bytes=INFO.block_bytes * 2))
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retryable) == (Code.MALFORMED, False)
        newer: Epoch = (EPOCH[0], EPOCH[1] + 1)
        r.standings["d1"].peers.learn(ScenarioMap("chat", 9, newer, [Group("main", [Member("p1", newer)])]))
        answer = await ways.ask(asked())
        assert isinstance(answer, Rejected)
        assert answer.code is Code.STALE
        r.states["d1"] = State.DRAINING
        answer = await ways.ask(asked())
        assert isinstance(answer, Rejected)
        assert (answer.code, answer.retryable) == (Code.DRAINING, True)


async def test_a_push_that_breaks_is_a_problem_until_a_later_one_arrives() -> None:
    async with linked(broken=KvRefused("checksum", "the bytes differ")) as ways:
        assert await ways.problem("d1") == "the bytes differ"
        await ways.relay.quiet()
        peers = ways.relay.standings["p1"].peers
        for number, state in enumerate((State.DRAINING, State.READY), start=2):  # back again, so the wait is over
            peers.learn(Status("d1", EPOCH, Role.DECODE, state, "chat", "main", slots=2, free=2, number=number))
        await ways.verified("d1")


async def test_pushes_of_requests_are_counted() -> None:
    async with linked() as ways:
        r = ways.relay
        await ways.verified("d1")
        await r.gateway.offer(a_request(stopping=Stopping(max_tokens=2)))
        await r.run("d1", lambda: bool(r.gateway.endings()))
        assert isinstance(r.gateway.endings()[0], Finished)
        [link] = r.standings["p1"].links.links()
        assert (link.pushes, link.bytes > 0) == (1, True)
        p1, d1 = (worker.load().work for worker in (r.prefill, r.decodes["d1"]))
        assert p1 is not None
        assert d1 is not None
        assert (p1.passed, p1.cached, p1.tokens > 0, d1.passed, d1.tokens) == (1, 1, True, 1, 1)
