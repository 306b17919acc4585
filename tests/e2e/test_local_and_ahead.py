"""Whole prompts at a decode, and prompts whose KV leaves while they are computed, in processes of their own."""

from pathlib import Path

from shared.config import Nats, RedisSettings
from shared.errors import Code
from shared.messages import Finished, Rejected
from tests.e2e.relay_processes import CONFIG, Relay, relay
from tests.waiting import until

SETTINGS = """
local_prefill_tokens = 1000
overlap_tokens = 600
"""
TEXT = CONFIG.replace("[scenario.chat.engine_options]", f"{SETTINGS}[scenario.chat.engine_options]", 1)
TOKENS = 24


async def answer(fleet: Relay, number: int, at: str, attempt: int, max_tokens: int = TOKENS) -> list[int]:
    """What a request brings that is offered there."""
    fleet.heard.clear()
    fleet.handed_off.clear()
    await fleet.place(fleet.request(number, max_tokens=max_tokens, attempt=attempt), at)
    heard = await fleet.ended(number)
    assert heard.indexes == list(range(max_tokens))
    assert [type(ending) for ending in heard.endings] == [Finished]
    return heard.ids


async def test_every_way_of_a_prompt_brings_the_same_tokens(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path, text=TEXT) as fleet:
        by_two = await answer(fleet, 7, "p1", 0)
        pushed = (await fleet.metrics("p1"))["baton_worker_kv_bytes_total"]
        assert await answer(fleet, 7, "d1", 1) == by_two
        assert [handed.decode for handed in fleet.handed_off] == ["d1"]
        assert (await fleet.metrics("p1"))["baton_worker_kv_bytes_total"] == pushed > 0

        ahead = await answer(fleet, 900, "p1", 0)
        prefill = await fleet.metrics("p1")
        assert prefill["baton_worker_kv_bytes_total"] > pushed
        assert await answer(fleet, 900, "d1", 1) == ahead

        refused = await fleet.offer(fleet.request(1100, max_tokens=4), "d1")
        assert isinstance(refused, Rejected)
        assert (refused.code, refused.retryable) == (Code.NO_CAPACITY, True)
        await fleet.quiet("p1", "d1")


async def test_whoever_dies_meanwhile_leaves_nothing_and_a_replay_brings_the_same_tokens(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    slow = TEXT.replace("prefill_ms = [0, 0.01, 2]", "prefill_ms = [0, 1, 0]")
    async with relay(nats_settings, redis_settings, tmp_path, prefills=2, decodes=2, text=slow) as fleet:
        expected = await answer(fleet, 700, "p2", 0)
        decodes = ("d1", "d2")

        async def holding() -> str:
            for name in decodes:
                if (await fleet.metrics(name))["baton_worker_slots_in_use"]:
                    return name
            return ""

        fleet.heard.clear()
        await fleet.place(fleet.request(700, max_tokens=TOKENS, attempt=1), "p1")
        while not await holding():  # room is made before the prompt is computed, which takes most of a second
            pass
        fleet.workers["p1"].kill()
        await fleet.workers["p1"].ended()
        await fleet.quiet(*decodes)
        assert fleet.heard[700].ids == []

        fleet.heard.clear()
        await fleet.place(fleet.request(700, max_tokens=400, attempt=2), "d1")
        await until(lambda: len(fleet.heard[700].ids) > 3, "tokens flow", 30)
        fleet.workers["d1"].kill()
        await fleet.workers["d1"].ended()
        await fleet.publish_map(without="d1")
        delivered = tuple(fleet.heard[700].ids[:10])
        assert delivered == tuple(expected[: len(delivered)])
        again = fleet.request(700, max_tokens=TOKENS, attempt=3, generated=delivered)
        fleet.heard.clear()
        await fleet.place(again, "p2")
        assert [*delivered, *(await fleet.ended(700)).ids] == expected
        await fleet.quiet("p2", "d2")
