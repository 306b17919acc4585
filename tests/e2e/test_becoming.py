"""Real workers take other roles by order: the same process and id, a new epoch, and nobody's stream is hurt.

The ways between prefills and decodes are verified by real pushes, and verified anew with each change.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared import keys
from shared.config import Nats, RedisSettings
from shared.errors import Code
from shared.messages import (
    AssignRole,
    Done,
    Epoch,
    Finished,
    Health,
    InstanceRecord,
    Link,
    Links,
    Rejected,
    Revision,
    Role,
    State,
    decode,
)
from tests.e2e.relay_processes import CONFIG, Relay, relay
from tests.waiting import until

TOKENS = 60
FAULTS = "faults.json"


@dataclass
class Fleet:
    """A relay whose workers can be told to become something else."""

    relay: Relay
    told: dict[str, Links] = field(default_factory=dict)

    async def listen(self) -> None:
        def hear(data: bytes) -> None:
            links = decode(data, Links)
            self.told[links.instance] = links

        await self.relay.bus.subscribe(self.relay.subjects.links("chat"), lambda delivery: hear(delivery.data))

    def link(self, prefill: str, decode: str) -> Link | None:
        links = self.told[prefill].links if prefill in self.told else []
        return next((link for link in links if link.decode == decode), None)

    async def verified(self, prefill: str, decode: str, after: Epoch = (0, 0)) -> Link:
        def good() -> bool:
            link = self.link(prefill, decode)
            return link is not None and link.verified and link.epoch > after

        await until(good, f"{prefill} has verified its way to {decode}", 30)
        link = self.link(prefill, decode)
        assert link is not None
        return link

    async def order(self, name: str, order: AssignRole) -> Done | Rejected:
        relay = self.relay
        answer: Done | Rejected = await relay.bus.request(
            relay.subjects.control(name), order, Done | Rejected, timeout_s=10
        )
        return answer

    async def record(self, name: str) -> InstanceRecord:
        return decode(await self.relay.redis.get(keys.instance(name)), InstanceRecord)

    async def become(self, name: str, role: Role, group: str = "main", revision: Revision | None = None) -> None:
        """Have an instance become something, and wait until it is that, as the same process under a new epoch."""
        before = await self.record(name)
        order = AssignRole(role, "chat" if group != "_" else "_", group, revision or Revision(0), seconds=20)
        assert await self.order(name, order) == Done(name)
        found = before
        while (found.role, found.state, found.epoch > before.epoch) != (role, State.READY, True):
            assert self.relay.workers[name].process.returncode is None, f"{name} ended instead of becoming a {role}"
            await asyncio.sleep(0.02)
            found = await self.record(name)
        assert (found.pid, found.id) == (before.pid, name)
        assert found.revision == order.revision.number


@pytest.fixture
async def fleet(nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path) -> AsyncIterator[Fleet]:
    text = f'{CONFIG}\n[instance]\nfault_file = "{tmp_path / FAULTS}"\n'
    async with relay(nats_settings, redis_settings, tmp_path, prefills=2, text=text) as running:
        fleet = Fleet(running)
        await fleet.listen()
        yield fleet


async def test_a_prefill_becomes_a_decode_and_a_prefill_again_and_no_stream_is_hurt(fleet: Fleet) -> None:
    r = fleet.relay
    for prefill in ("p1", "p2"):
        await fleet.verified(prefill, "d1")
    for number in range(4):
        await r.place(r.request(number, max_tokens=TOKENS), "p2")
    await fleet.become("p2", Role.DECODE)
    await r.publish_map(without="d1")
    link = await fleet.verified("p1", "p2")
    assert link.epoch == r.statuses["p2"].epoch

    for number in range(4, 8):
        await r.place(r.request(number, max_tokens=TOKENS), "p1")
    await until(lambda: all(r.heard[number].ids for number in range(4, 8)), "its streams run")
    await until(lambda: (link := fleet.link("p1", "p2")) is not None and link.pushes == 4, "its pushes are counted")
    await fleet.become("p2", Role.PREFILL)
    for number in range(8):
        heard = await r.ended(number)
        assert isinstance(heard.endings[0], Finished)
        assert heard.indexes == list(range(TOKENS))
        assert heard.enders == ["d1" if number < 4 else "p2"]

    await r.publish_map()
    await fleet.verified("p2", "d1")
    assert fleet.link("p1", "p2") is None
    await r.place(r.request(8, max_tokens=3), "p2")
    await r.ended(8)
    await until(lambda: (work := r.statuses["d1"].work) is not None and work.passed == 5, "its work is counted")
    work = r.statuses["d1"].work
    assert work is not None
    assert work.slot_us >= work.busy_us > 0


@pytest.mark.long
async def test_a_worker_waits_as_a_standby_and_comes_back_with_a_revision_that_does_not_fit_the_others(
    fleet: Fleet,
) -> None:
    r = fleet.relay
    first = await fleet.verified("p1", "d1")
    await fleet.become("p2", Role.STANDBY, "_")
    assert (await fleet.record("p2")).scenario == ""
    refused = await fleet.order("p2", AssignRole(Role.PREFILL, "chat", "main", Revision(1, options={"nonsense": 1})))
    assert isinstance(refused, Rejected)
    assert (refused.code, "nonsense" in refused.message) == (Code.BAD_REQUEST, True)

    await fleet.become("p2", Role.DECODE, revision=Revision(1, options={"kv_bytes_per_token": 1024}))
    await r.publish_map()
    await until(lambda: (link := fleet.link("p1", "p2")) is not None and bool(link.problem), "the check is refused", 30)
    link = fleet.link("p1", "p2")
    assert link is not None
    assert (link.verified, link.problem) == (False, "p2 runs another model, KV layout or data type")
    assert await fleet.verified("p1", "d1") == first

    await fleet.become("p2", Role.DECODE)
    await r.publish_map()
    await fleet.verified("p1", "p2")
    await fleet.become("p2", Role.STANDBY, "_")


@pytest.mark.long
async def test_a_fault_of_the_node_is_told_and_keeps_requests_away_until_it_is_gone(
    fleet: Fleet, tmp_path: Path
) -> None:
    r, file = fleet.relay, tmp_path / FAULTS
    await fleet.verified("p1", "d1")
    file.write_text('{"faults": [{"level": "failed", "text": "no power"}]}')
    await until(lambda: all(r.statuses[name].health is Health.FAILED for name in r.workers), "all workers say so", 30)
    answer = await r.offer(r.request(1, max_tokens=3))
    assert isinstance(answer, Rejected)
    assert (answer.retryable, answer.message) == (True, "p1 takes nothing: its device has failed: no power")
    file.unlink()
    await until(lambda: all(r.statuses[name].health is Health.OK for name in r.workers), "all workers say so", 30)
    await r.place(r.request(1, max_tokens=3))
    assert isinstance((await r.ended(1)).endings[0], Finished)
