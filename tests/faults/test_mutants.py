"""The mutation check: with a safeguard taken out, the same scenario that the product passes turns red.

One cluster for all. A mutant stands beside the product and is hurt in the same way, at the same time where that can be.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shared.config import KvSettings
from shared.errors import Code
from shared.kv.layout import checksum
from shared.kv.wire import Answer
from shared.messages import KvGrant, KvReady, Rejected, Role, ScenarioMap, decode, encode
from shared.subjects import Subjects
from tests.faults.cluster import Cluster, cluster
from tests.faults.mutants import MUTATIONS, STUCK
from tests.faults.mutants_bench import Bench, Traffic
from tests.faults.nats_wire import NatsWire, Rule
from tests.faults.trial import in_the_map
from tests.faults.wire import Wire
from tests.kv_ends import Ends, HandSender
from tests.servers import HOST, free_port
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 5000
NEVER_S = 6.0
"""A client's patience where the mutant's stream never ends: far more than the product needs."""
QUICK = """
[fleet]
lease_ttl_s = 1.0
heartbeat_s = 0.25
progress_s = 1.5
push_timeout_s = 3.0
"""
SUBJECTS = Subjects("baton")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder = tmp_path_factory.mktemp("mutants")
    async with cluster(folder, gateways=1, prefills=1, decodes=1, toml=QUICK, options={"decode_step_ms": 20}) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def bench(fleet: Cluster) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        bench = Bench(fleet, stack)
        yield bench
        await bench.away()


def frames(subject: str) -> bool:
    return "._frames." in subject


async def test_every_mutation_changes_a_line_that_is_there() -> None:
    for mutation in MUTATIONS.values():
        for change in mutation.changes:
            assert change.made() is not None


async def test_without_deduplication_a_token_that_comes_twice_is_shown_twice(bench: Bench) -> None:
    names = await bench.gateways("", "no-deduplication")
    for name in names:
        bench.nats[name].rules.append(Rule(twice=1))
    product, mutant = [Traffic(bench.fleet, name, 20) for name in names]
    assert await product.violations() == []
    assert any("repeated or out of order" in wrong for wrong in await mutant.violations())


@pytest.mark.long
async def test_without_its_memory_of_what_was_delivered_a_replay_repeats_it(bench: Bench) -> None:
    names, victim = await asyncio.gather(bench.gateways("", "forgets-what-was-delivered"), bench.decode())
    product, mutant = [Traffic(bench.fleet, name, 100) for name in names]
    await asyncio.gather(product.under_way(), mutant.under_way())
    bench.fleet.processes[victim].kill()
    assert await product.violations() == []
    assert any("repeated or out of order" in wrong for wrong in await mutant.violations())


@pytest.mark.long
async def test_without_a_progress_deadline_a_stream_whose_engine_is_stuck_never_ends(bench: Bench) -> None:
    """The decode itself is well, and says so; its engine brings nothing any more."""
    names, _ = await asyncio.gather(bench.gateways("", "no-progress-deadline"), bench.decode(STUCK))
    product, mutant = [
        Traffic(bench.fleet, name, 80, timeout_s=seconds) for name, seconds in zip(names, (60, NEVER_S), strict=True)
    ]
    assert await product.violations() == []
    assert any("timeout" in wrong for wrong in await mutant.violations())


@pytest.mark.long
async def test_without_judgement_of_silence_the_streams_of_a_frozen_decode_never_end(bench: Bench) -> None:
    names, frozen = await asyncio.gather(bench.gateways("", "no-judgement-of-silence"), bench.decode())
    product, mutant = [
        Traffic(bench.fleet, name, 80, timeout_s=seconds) for name, seconds in zip(names, (60, NEVER_S), strict=True)
    ]
    await asyncio.gather(product.under_way(), mutant.under_way())
    bench.fleet.processes[frozen].freeze()
    assert await product.violations() == []
    assert any("timeout" in wrong for wrong in await mutant.violations())


async def words_held_back(bench: Bench, muted: str, everybody: list[Traffic]) -> None:
    """Lose what a decode says until its streams have gone on elsewhere and it has heard that they have."""
    wire = bench.nats[muted]
    wire.record = frames
    wire.rules.append(Rule(drop=1, down=False))
    while (await bench.fleet.metrics(muted))["baton_worker_slots_in_use"]:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    wire.record = lambda _: False
    assert len({recorded.frame.subject for recorded in wire.recorded}) == len(everybody), "it had streams of each"
    for traffic in everybody:  # all go on
        most = max(len(entry.begun.events) for entry in traffic.history.entries)
        await traffic.history.flowing(traffic.streams, most + 5)


async def say_it_now(wire: NatsWire) -> None:
    """Let out what was held back, no faster than the wire takes it."""
    for recorded in wire.recorded:
        wire.replay(recorded)
        await asyncio.sleep(0.002)


@pytest.mark.long
async def test_without_attempts_the_late_word_of_an_older_one_ends_a_stream(bench: Bench) -> None:
    names, muted = await asyncio.gather(bench.gateways("", "no-attempts"), bench.decode())
    both = [Traffic(bench.fleet, name, 250, streams=4) for name in names]
    await asyncio.gather(*(traffic.under_way() for traffic in both))
    await words_held_back(bench, muted, both)
    await say_it_now(bench.nats[muted])
    product, mutant = both
    assert await product.violations() == []
    assert any("cancelled" in wrong for wrong in await mutant.violations())
    assert (await bench.fleet.metrics(names[0]))["baton_gateway_frames_stale_tokens_total"] > 0


@pytest.mark.long
async def test_the_fence_alone_refuses_the_late_word_of_a_decode_that_was_replaced(bench: Bench) -> None:
    """Attempts refuse most of it, so this is shown where they are not looked at."""
    names, muted = await asyncio.gather(bench.gateways("", "no-attempts", "no-attempts-and-no-fence"), bench.decode())
    everybody = [Traffic(bench.fleet, name, 450, streams=4) for name in names]
    await asyncio.gather(*(traffic.under_way() for traffic in everybody))
    await words_held_back(bench, muted, everybody)
    await bench.redis[muted].cut()
    await bench.replace(muted)
    await say_it_now(bench.nats[muted])
    product, fenced, neither = everybody
    assert await product.violations() == []
    assert await fenced.violations() == []
    assert any("cancelled" in wrong for wrong in await neither.violations())
    assert (await bench.fleet.metrics(names[1]))["baton_gateway_frames_stale_frames_total"] > 0


@asynccontextmanager
async def speaking(fleet: Cluster) -> AsyncIterator[Client]:
    """Someone who may say and hear everything."""
    settings = fleet.nats.settings()
    client = await nats.connect(settings.url, user=settings.user, password=settings.password)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.long
async def test_without_a_fence_a_gateway_believes_a_monitor_that_leads_no_more(bench: Bench) -> None:
    """What it says over and over is what it saw before anybody had come."""
    names = await bench.gateways("", "no-fence-for-maps")
    product, mutant = [Traffic(bench.fleet, name, 100) for name in names]
    await asyncio.gather(product.under_way(), mutant.under_way())
    async with speaking(bench.fleet) as client:
        while not all(work.done() for work in product.works + mutant.works):
            await client.publish(SUBJECTS.map("chat"), encode(ScenarioMap("chat", 1, (0, 1), [])))
            await asyncio.sleep(0.02)
    assert await product.violations() == []
    taken_away = [(await bench.fleet.metrics(name)).get("baton_gateway_withdrawn_total", 0) for name in names]
    assert taken_away[1] > taken_away[0], "workers that are well lost what they held"


async def test_without_a_fence_a_decode_makes_room_for_a_prefill_that_was_replaced(bench: Bench) -> None:
    fleet = bench.fleet
    old = await bench.add(Role.PREFILL)
    await fleet.until_ready(old)
    await in_the_map(fleet, Role.PREFILL, old)
    async with speaking(fleet) as client:
        offers = await client.subscribe(SUBJECTS.decode("chat", "*"))
        traffic = Traffic(fleet, "gateway-1", 4, streams=12)
        assert await traffic.violations() == []
        said = [message.data async for message in _all_of(offers)]
        offer = next(data for data in said if decode(data, KvReady).prefill == old)
        fleet.processes[old].kill()
        await fleet.processes[old].ended()
        await fleet.start(Role.PREFILL, old)
        asked = [await bench.add(Role.DECODE), await bench.add(Role.DECODE, "no-fence-at-decode")]
        await asyncio.gather(*map(fleet.until_ready, (old, *asked)))
        answers = [
            decode((await client.request(SUBJECTS.decode("chat", name), offer, timeout=10)).data, KvGrant | Rejected)
            for name in asked
        ]
    product, mutant = answers
    assert isinstance(product, Rejected)
    assert product.code is Code.STALE
    assert isinstance(mutant, KvGrant)


async def test_without_the_checksum_a_flipped_bit_of_kv_is_a_wrong_token(bench: Bench) -> None:
    for mutation in ("", "no-checksum"):
        kv = free_port()
        async with Wire(kv, seed=3) as wire:
            address = {"BATON_KV__PORT": str(kv), "BATON_KV__ADVERTISE": f"{HOST}:{wire.port}"}
            name = await bench.add(Role.DECODE, mutation, {**address, "BATON_KV__SHARED_MEMORY": "false"})
            await bench.fleet.until_ready(name)
            await in_the_map(bench.fleet, Role.DECODE, name)  # over a way that hurts it would never be verified
            wire.up.flip_rate = 1e-4
            violations = await Traffic(bench.fleet, "gateway-1", 20, streams=18).violations()
            assert wire.up.flipped > 0
            if mutation:
                assert any("wrong text" in wrong for wrong in violations)
            else:
                assert violations == []
            bench.fleet.processes[name].kill()


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("mutation", ["", "tickets-for-ever"])
async def test_a_ticket_that_is_good_twice_lets_a_buffer_change_after_it_was_verified(
    mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two real ends; in the worker the moment between arrival and use is too short to be met from outside."""
    if mutation:
        for change in MUTATIONS[mutation].changes:
            monkeypatch.setattr(change.owner, change.function, change.made())
    ends = await Ends.open("tcp", KvSettings(max_transfers=4))
    staging, other = ends.staged(SIZE), ends.staged(SIZE)
    push, grant = ends.granted(SIZE)
    first, again = await HandSender.connect(ends), await HandSender.connect(ends)
    assert await first.open(grant, staging) is Answer.GO
    await first.payload(staging)
    assert await first.finish(checksum(staging.view)) is Answer.DONE
    answer = await again.open(grant, other)
    assert (answer is Answer.GO) == bool(mutation)
    if answer is Answer.GO:
        await again.payload(other)
        await until(lambda: bytes(push.view) == bytes(other.view), "the buffer is another, and nobody has taken it yet")
    push.cancel()
    for peer in (first, again):
        peer.close()
    for held in (staging, other):
        held.release()
    await ends.close()


async def _all_of(subscription: Subscription) -> AsyncIterator[Msg]:
    while subscription.pending_msgs:
        yield await subscription.next_msg()
