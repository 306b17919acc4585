"""Prefill and decode in processes of their own, over real NATS and Redis: every token crosses with its KV buffer."""

import asyncio
from pathlib import Path

import pytest

from shared.config import Nats, RedisSettings
from shared.errors import Code
from shared.messages import Failed, Finish, Finished, Rejected, Role
from tests.e2e.relay_processes import Heard, Relay, relay
from tests.waiting import until

TOKENS = 24


async def a_whole_answer(fleet: Relay, number: int, max_tokens: int = TOKENS) -> Heard:
    await fleet.place(fleet.request(number, max_tokens=max_tokens))
    return await fleet.ended(number)


def whole(heard: Heard, max_tokens: int = TOKENS) -> bool:
    """Every index once and in order, one good ending."""
    return heard.indexes == list(range(max_tokens)) and [
        (type(e), getattr(e, "reason", None)) for e in heard.endings
    ] == [(Finished, Finish.LENGTH)]


async def test_tokens_stream_over_two_processes_and_nothing_is_held_after(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path) as fleet:
        heard = await a_whole_answer(fleet, 1)
        assert whole(heard)
        assert [(h.stream, h.decode) for h in fleet.handed_off] == [(1, "d1")]
        await fleet.quiet("p1", "d1")
        prefill, decode = await fleet.metrics("p1"), await fleet.metrics("d1")
        assert prefill["baton_worker_kv_bytes_total"] == decode["baton_worker_kv_bytes_total"] > 0
        assert prefill["baton_worker_kv_push_seconds_count"] == 1


async def test_many_requests_share_the_slots_and_each_ends_once_and_whole(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path, decodes=2) as fleet:
        numbers = range(1, 41)
        answers = await asyncio.gather(*(a_whole_answer(fleet, number) for number in numbers))
        assert [number for number, heard in zip(numbers, answers, strict=True) if not whole(heard)] == []
        assert {h.decode for h in fleet.handed_off} == {"d1", "d2"}
        assert fleet.frames < sum(len(heard.ids) for heard in answers), "a frame holds a step, not a token"
        await fleet.quiet("p1", "d1", "d2")


async def test_a_killed_decode_is_replaced_by_replay_with_the_same_tokens(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path, decodes=2) as fleet:
        reference = (await a_whole_answer(fleet, 7, 200)).ids.copy()
        fleet.heard.clear()
        fleet.handed_off.clear()
        await fleet.place(fleet.request(7, max_tokens=200, attempt=1))
        await until(lambda: len(fleet.heard[7].ids) > 20 and bool(fleet.handed_off), "tokens flow", 30)
        victim = fleet.handed_off[0].decode
        fleet.workers[victim].kill()
        await fleet.workers[victim].ended()
        await asyncio.sleep(0.1)
        delivered = fleet.heard[7].ids.copy()
        assert 20 < len(delivered) < 200
        await fleet.place(fleet.request(7, max_tokens=200, attempt=2, generated=tuple(delivered)))
        heard = await fleet.ended(7)
        assert heard.indexes == list(range(200))
        assert heard.ids == reference
        survivor = "d1" if victim == "d2" else "d2"
        await fleet.quiet("p1", survivor)


async def test_a_killed_prefill_leaves_nothing_at_decode(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path, prefills=2) as fleet:
        requests = [fleet.request(number, max_tokens=8) for number in range(1, 9)]
        await asyncio.gather(*(fleet.place(request, "p1") for request in requests))
        fleet.workers["p1"].kill()
        await fleet.workers["p1"].ended()
        again = [fleet.request(number, max_tokens=8, attempt=1) for number in range(1, 9)]
        await asyncio.gather(*(fleet.place(request, "p2") for request in again))
        for number in range(1, 9):
            heard = fleet.heard[number]
            await until(lambda h=heard: any(isinstance(e, Finished) for e in h.endings), f"{number} finished", 30)
        await fleet.quiet("p2", "d1")


async def test_500_clients_that_vanish_in_every_phase_leave_nothing(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path) as fleet:

        async def come_and_go(number: int) -> None:
            request = fleet.request(number, max_tokens=1000)
            answer = await fleet.offer(request)
            await asyncio.sleep((number % 23) / 500)
            await fleet.cancel(request)
            if not isinstance(answer, Rejected):
                await fleet.ended(number)

        for first in range(1, 501, 50):
            await asyncio.gather(*(come_and_go(number) for number in range(first, first + 50)))
        await fleet.quiet("p1", "d1")
        for heard in fleet.heard.values():
            assert all(isinstance(e, Failed) and e.code is Code.CANCELLED for e in heard.endings)
            assert len(set(heard.enders)) == len(heard.enders), "each worker ends what it accepted once"
        assert whole(await a_whole_answer(fleet, 501))


async def test_a_worker_told_to_stop_finishes_what_it_holds(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path) as fleet:
        await fleet.place(fleet.request(1, max_tokens=100))
        await until(lambda: bool(fleet.handed_off), "the KV has left")
        fleet.workers["d1"].terminate()
        fleet.workers["p1"].terminate()
        assert whole(await fleet.ended(1), 100)
        assert [await fleet.workers[name].ended() for name in ("p1", "d1")] == [0, 0]


@pytest.mark.parametrize("data", [b"", b"\xc1" * 64, b"\x81" * 5000])
async def test_malformed_bytes_are_answered_and_the_services_stay_up(
    data: bytes, nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path) as fleet:
        for subject in (fleet.subjects.prefill("chat", "p1"), fleet.subjects.decode("chat", "d1")):
            answer: Rejected = await fleet.bus.request(subject, data, Rejected, timeout_s=5)
            assert answer.code is Code.MALFORMED
        for subject in (fleet.subjects.cancel("chat"), fleet.subjects.map("chat"), fleet.subjects.status("chat", "x")):
            await fleet.bus.publish(subject, data)
        assert whole(await a_whole_answer(fleet, 1))
        assert (await fleet.metrics("p1"))["baton_worker_malformed_messages_total"] == 4


async def test_a_decode_that_starts_late_gets_the_kv_that_waited_for_it(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    async with relay(nats_settings, redis_settings, tmp_path, decodes=0) as fleet:
        await fleet.place(fleet.request(1, max_tokens=TOKENS))
        await until(lambda: bool(fleet.heard[1].ids), "the first token came without any decode")
        await fleet.start(Role.DECODE, "d1")
        await fleet.join("d1")
        assert whole(await fleet.ended(1))


async def test_the_torch_engine_decodes_from_a_kv_cache_that_crossed_what_a_recomputed_one_gives(
    nats_settings: Nats, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    model = a_tiny_model(tmp_path / "tiny")
    options = "max_num_seqs = 4\nkv_cache_mb = 8\nthreads = 1\nblock_size = 4"
    text = f'[scenario.chat]\nmodel = "{model}"\nengine = "torch"\n[scenario.chat.engine_options]\n{options}\n'
    async with relay(nats_settings, redis_settings, tmp_path, text=text) as fleet:
        await fleet.place(fleet.request(1, max_tokens=TOKENS))
        assert whole(await fleet.ended(1))
        ids = fleet.heard[1].ids.copy()
        assert len(set(ids)) > 1, "a model that says one thing only would agree with anything"
        for generated in (1, 5, TOKENS - 2):
            fleet.heard.clear()
            await fleet.place(fleet.request(1, max_tokens=TOKENS, attempt=generated, generated=tuple(ids[:generated])))
            heard = await fleet.ended(1)
            assert heard.indexes == list(range(generated, TOKENS))
            assert heard.ids == ids[generated:]
        await fleet.quiet("p1", "d1")


def a_tiny_model(directory: Path) -> Path:
    """A random model with a tokenizer of one token per byte, as far as its vocabulary goes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from tests.tiny_models import SHAPE, edit, make

    directory.mkdir()
    make("gemma 3", directory)
    edit(directory, eos_token_id=None, max_position_embeddings=512)
    (directory / "generation_config.json").unlink(missing_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: SHAPE["vocab_size"]]
    tokenizer = Tokenizer(models.BPE(vocab={character: k for k, character in enumerate(alphabet)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory
