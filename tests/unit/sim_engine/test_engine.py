"""What only the sim engine does: its options, its pace, its prefix cache, and damage that shows."""

import asyncio
import math

import pytest

from shared.config import ScenarioSettings
from shared.engine.opening import open_engine
from shared.engine.sim_engine.chain import PRINTABLE, Vocabulary, oracle
from shared.engine.sim_engine.options import SimOptions, read_options
from shared.errors import ConfigError
from shared.messages import Sampling, Stopping
from shared.models import resolve
from tests.engine_house import Worker, buffer_for, extended, house, ids, relay, sequence

PROMPT = list(b"once upon a time there was a test")


def test_all_mistakes_in_the_options_are_reported_at_once() -> None:
    wrong = {"prefill_ms": [1, 2], "decode_step_ms": -1, "emit": "morse", "max_num_sequences": 4, "prefill": [1, 2, 3]}
    with pytest.raises(ConfigError) as refused:
        read_options(wrong)
    assert len(refused.value.faults) == len(wrong)
    for name in wrong:
        assert name in str(refused.value)


@pytest.mark.parametrize(
    "value", ["1", 5, None, [1, 2, "3"], [1, 2, 3, 4], [0, 0, -1], [0, 0, math.nan], [0, 0, math.inf], [True, 0, 0]]
)
def test_a_prefill_formula_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="prefill_ms"):
        read_options({"prefill_ms": value})


def test_prefill_time_is_the_formula_over_the_tokens() -> None:
    options = read_options({"prefill_ms": [0.001, 0.5, 3]})
    assert options.prefill_s(200) == pytest.approx((40 + 100 + 3) / 1000)


def test_without_a_number_of_blocks_there_are_enough_for_every_sequence() -> None:
    assert SimOptions(max_num_seqs=3, max_model_len=100, block_size=16).blocks == 21
    assert SimOptions(num_blocks=2, block_size=16).context == 32


def test_a_step_takes_longer_the_more_sequences_there_are() -> None:
    options = read_options({"decode_step_ms": 10, "decode_seq_ms": 0.5})
    assert options.decode_step_s(8) == pytest.approx(0.014)


async def test_prompts_beyond_the_batch_wait_their_turn_in_the_order_of_arrival() -> None:
    through: list[str] = []

    async def compute(worker: Worker, key: str) -> None:
        await worker.prefill(sequence(key, PROMPT))
        through.append(key)

    async with house("sim", None) as engines:
        worker = await engines.worker(prefill_ms=[0, 0, 40], prefill_batch=2)
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as together:
            for key in "abcde":
                together.create_task(compute(worker, key))
        took_s = asyncio.get_running_loop().time() - began
    assert through == list("abcde")
    assert took_s >= 3 * 0.04  # five prompts, two at a time


async def test_a_whole_relay_brings_the_text_of_the_oracle() -> None:
    async with house("sim", None) as engines:
        prefill, decode = await engines.worker(), await engines.worker()
        sampled = await relay(prefill, decode, sequence("one", PROMPT))
    assert ids(sampled) == oracle(PROMPT, 12, Sampling(seed=7), Vocabulary(PRINTABLE, {257}, 0))


@pytest.mark.parametrize("width", [100, 50_000])  # read on the loop, and in a thread
async def test_a_damaged_byte_in_the_hand_off_shows_in_the_text(width: int) -> None:
    async with house("sim", None) as engines:
        worker: Worker = await engines.worker(kv_bytes_per_token=width)
        wanted = sequence("hurt", PROMPT)
        first, buffer = await worker.prefill(wanted)
        buffer[width * 5 + 17] ^= 1
        hurt = await worker.decode(wanted, first, buffer)
        sound = await worker.alone(PROMPT, 12)
    assert hurt.error is None
    assert [first.token_id, *hurt.tokens] != sound


async def test_a_repeated_prompt_is_found_in_the_prefix_cache_and_gives_the_same_text() -> None:
    async with house("sim", None) as engines:
        worker = await engines.worker(enable_prefix_cache=True)
        answers = []
        for key in ("first", "second"):
            wanted = sequence(key, PROMPT)
            answers.append(await worker.engine.prefill(wanted, buffer_for(worker.engine, len(PROMPT))))
            await worker.engine.exported(key)
            await worker.engine.release(key)
        assert [answer.cached_tokens for answer in answers] == [0, len(PROMPT) - 1]
        assert answers[0].first.token_id == answers[1].first.token_id
        assert worker.engine.load().free_blocks == worker.engine.info.blocks


async def test_steps_keep_their_distance() -> None:
    async with house("sim", None) as engines:
        worker = await engines.worker(decode_step_ms=10)
        loop = asyncio.get_running_loop()
        wanted = sequence("slow", PROMPT, stopping=Stopping(max_tokens=6))
        first, buffer = await worker.prefill(wanted)
        began = loop.time()
        await worker.decode(wanted, first, buffer)
        assert loop.time() - began >= 5 * 0.010  # five steps; more on a busy machine, never less


async def test_a_sequence_that_joins_during_a_step_gets_its_token_with_the_next() -> None:
    async with house("sim", None) as engines:
        source, worker = await engines.worker(), await engines.worker(reads=False, decode_step_ms=300)
        asked = [sequence(key, PROMPT, stopping=Stopping(max_tokens=9)) for key in ("early", "late")]
        found = [await source.prefill(one) for one in asked]
        steps = worker.engine.steps()
        await worker.engine.insert(extended(asked[0], found[0][0]), len(PROMPT), found[0][1])
        first = asyncio.ensure_future(anext(steps))
        await asyncio.sleep(0.02)  # the step has begun
        await worker.engine.insert(extended(asked[1], found[1][0]), len(PROMPT), found[1][1])
        assert [one.key for one in (await first).sampled] == ["early"]
        assert {one.key for one in (await anext(steps)).sampled} == {"early", "late"}


async def test_nothing_runs_while_nobody_reads_the_steps() -> None:
    async with house("sim", None) as engines:
        source, worker = await engines.worker(), await engines.worker(reads=False)
        wanted = sequence("unread", PROMPT)
        first, buffer = await source.prefill(wanted)
        await worker.engine.insert(extended(wanted, first), len(PROMPT), buffer)
        await source.alone(PROMPT, 3)
        assert worker.engine.load().steps == 0


async def test_the_end_of_the_text_comes_by_itself_where_it_is_asked_for() -> None:
    async with house("sim", None) as engines:
        worker = await engines.worker(eos_one_in=2)
        wanted = sequence("ending", PROMPT, stopping=Stopping(max_tokens=80))
        sampled = await relay(worker, worker, wanted)
        assert sampled[-1].token_id == 257
        assert sampled[-1].stop_token == 257


def test_engines_open_by_name() -> None:
    spec = resolve("any", "sim", {})
    with pytest.raises(ConfigError, match="engine vllm needs vLLM"):
        open_engine(ScenarioSettings(model="any", engine="vllm"), spec)
    with pytest.raises(ConfigError, match="none of torch, vllm, sim"):
        open_engine(ScenarioSettings(model="any", engine="abacus"), spec)
    with pytest.raises(ConfigError, match="model's files"):
        open_engine(ScenarioSettings(model="any", engine="torch"), spec)
    with pytest.raises(ConfigError, match="block_sise"):
        open_engine(ScenarioSettings(model="any", engine="sim", engine_options={"block_sise": 1}), spec)
