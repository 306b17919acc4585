"""The client of the benchmarks, and the relay they measure: each request is asked once, answered whole, and timed."""

from pathlib import Path

from bench.load import Load, answered, measured
from bench.relay import relay

STEP_MS = 5
ANSWER = 8
SIM = {"prefill_ms": [0, 0, 2], "decode_step_ms": STEP_MS, "max_num_seqs": 16, "kv_bytes_per_token": 512}
SCENARIO = {"model": "sim", "engine": "sim", "engine_options": {**SIM, "max_model_len": 512}}


async def test_streams_ask_until_all_prompts_are_answered(tmp_path: Path) -> None:
    async with relay(tmp_path, SCENARIO) as served:
        load = Load(served.port, served.model, ANSWER, [f"prompt {n}" for n in range(9)], streams=4)
        seen = await answered(load)
        figures = await measured(load, served)
    assert len(seen.times) == 9
    assert all(one.asked < one.first <= one.last for one in seen.times)
    assert seen.tpot_ms()[0] > 0
    assert figures.tokens_s > 0
    assert 0 < figures.front_us < figures.all_us
    assert figures.client_us > 0


async def test_requests_arrive_when_they_are_due_and_count_from_then(tmp_path: Path) -> None:
    due = [0.0, 0.1, 0.2, 0.6]
    async with relay(tmp_path, SCENARIO) as served:
        load = Load(served.port, served.model, ANSWER, [[65] * 20 for _ in due], arrivals=due)
        seen = await answered(load)
    start = min(one.asked for one in seen.times)
    assert sorted(round((one.asked - start) / 1e9, 3) for one in seen.times) == due
    assert seen.refused == 0
    assert seen.within(60_000, 60_000) == 1.0
    assert seen.within(60_000, 0.0) == 0.0


async def test_a_decode_alone_serves_prompts_that_it_computes_itself(tmp_path: Path) -> None:
    scenario = {**SCENARIO, "prefill": 0, "local_prefill_tokens": 256}
    async with relay(tmp_path, scenario, prefills=0) as served:
        seen = await answered(Load(served.port, served.model, ANSWER, ["a", "b"], streams=2))
    assert len(seen.times) == 2
