"""Steps of the paged layout come to what attention is by its definition, whatever they consist of."""

import pytest
import torch

pytest.importorskip("triton")

from shared.engine.torch_engine.scheduler import Plan
from tests.paged_steps import Bench, agree, architecture, chunk

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def mixed(bench: Bench) -> Plan:
    """Long and short sequences, a prompt's first chunk, a later one that ends it, one of a few rows."""
    decodes = [bench.run(tokens + 1, tokens) for tokens in (1, 41, 3)]
    chunks = [chunk(bench.run(40, 0), 11), chunk(bench.run(19, 17), 19), chunk(bench.run(49, 39), 49)]
    return Plan(decodes, chunks)


@pytest.mark.parametrize(("block_size", "windows"), [(1, (0,)), (5, (7, 33)), (16, (40, 0))])
def test_a_step_of_anything_attends_as_it_should(block_size: int, windows: tuple[int, ...]) -> None:
    bench = Bench(architecture(windows=windows), block_size=block_size, blocks=240)
    plan = mixed(bench)
    agree(bench.seen(bench.layout.batch(plan)), bench.expected(plan), **CLOSE)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "qk_norm"),
    [(3, 3, 20, False), (7, 1, 24, True), (12, 2, 64, False), (16, 1, 16, True)],
)
def test_heads_of_any_shape_attend_as_they_should(heads: int, kv_heads: int, head_dim: int, *, qk_norm: bool) -> None:
    bench = Bench(architecture(heads, kv_heads, head_dim, qk_norm=qk_norm))
    plan = mixed(bench)
    agree(bench.seen(bench.layout.batch(plan)), bench.expected(plan), **CLOSE)


def test_the_parts_of_a_long_sequence_are_put_together() -> None:
    bench = Bench(architecture(windows=(0, 150)), block_size=16, blocks=80, ids=1600)
    object.__setattr__(bench.layout._memory, "processors", 132)
    for tokens in (31, 300, 1100):
        plan = Plan([bench.run(tokens + 1, tokens)])
        agree(bench.seen(bench.layout.batch(plan)), bench.expected(plan), **CLOSE)
        assert not bench.layout._memory.arrivals.any()
        bench.free += plan.decodes[0].blocks


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        pytest.param(
            torch.bfloat16,
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="Triton's interpreter cannot multiply them"),
        ),
    ],
)
def test_sixteen_bits_attend_to_their_precision(dtype: torch.dtype) -> None:
    bench = Bench(architecture(8, 2, 64, windows=(0, 9)), dtype=dtype)
    plan = mixed(bench)
    few = 3e-2 if dtype == torch.bfloat16 else 4e-3
    agree(bench.seen(bench.layout.batch(plan)), bench.expected(plan), rtol=few, atol=few)


def test_sequences_come_and_go_and_only_new_blocks_are_sent() -> None:
    bench = Bench(architecture(), block_size=4, sequences=3)
    first, second, third = (bench.run(tokens + 1, tokens) for tokens in (6, 13, 2))
    for runs in ([first, second], [first, second, third], [third, first], [second, third], [second, third]):
        plan = Plan(runs)
        agree(bench.seen(bench.layout.batch(plan)), bench.expected(plan), **CLOSE)
        for run in runs:
            bench.grow(run)
    plan = Plan([second, third])
    bench.layout.rows(plan)
    assert bench.layout.rows(plan).entries == []
    second.blocks.append(bench.free.pop())
    assert bench.layout.rows(plan).entries[1::2] == second.blocks[-1:]


def test_a_token_drawn_on_the_device_is_taken_from_there() -> None:
    bench = Bench(architecture())
    decoding, prompt = bench.run(6, 5), bench.run(20, 0)
    batch = bench.layout.batch(Plan([decoding], [chunk(prompt, 20)]))
    assert batch.samples == [decoding, prompt]
    bench.layout.keep(batch, torch.tensor([71, 72], device=batch.tokens.device))
    for run in (decoding, prompt):
        run.computed = len(run.tokens)
        run.blocks.append(bench.free.pop())
    assert bench.layout.batch(Plan([prompt, decoding])).tokens.tolist() == [72, 71]
    decoding.tokens.append(5)
    assert bench.layout.batch(Plan([prompt, decoding])).tokens.tolist() == [72, 5]


def test_a_fixed_step_is_filled_again_and_again_and_its_padding_leaves_nothing() -> None:
    bench = Bench(architecture(windows=(0, 5)), block_size=4, sequences=3)
    bench.run(1, 0)  # it has the id that padding computes
    step = bench.layout.fixed(4)
    runs = [bench.run(tokens + 1, tokens) for tokens in (9, 30, 3)]
    for some in (runs[:1], runs, runs[1:]):
        plan = Plan(some)
        samples = step.fill(plan)
        assert samples == some
        agree(bench.seen(step.begin(), samples), bench.expected(plan), **CLOSE)
        for run in some:
            bench.grow(run)


def test_more_new_blocks_than_a_fixed_step_has_room_for_are_written_before_it() -> None:
    bench = Bench(architecture(), block_size=1, blocks=300)
    step = bench.layout.fixed(1)
    plan = Plan([bench.run(201, 200)])
    samples = step.fill(plan)
    agree(bench.seen(step.begin(), samples), bench.expected(plan), **CLOSE)
