"""Steps of the paged layout at the sizes that models have, and as CUDA graphs."""

import pytest
import torch

pytest.importorskip("triton")

from shared.engine.torch_engine.scheduler import Plan
from tests.paged_steps import Bench, agree, architecture, chunk

pytestmark = pytest.mark.gpu

SHAPES = [(32, 8, 128, (0,)), (8, 8, 64, (0, 500)), (4, 1, 256, (512, 0)), (28, 4, 128, (0,)), (32, 2, 128, (0,))]
CLOSE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-4}


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "windows"), SHAPES)
def test_a_step_of_long_texts_attends_as_it_should(
    heads: int, kv_heads: int, head_dim: int, windows: tuple[int, ...], dtype: torch.dtype
) -> None:
    shape = architecture(heads, kv_heads, head_dim, windows=windows, qk_norm=True)
    bench = Bench(shape, block_size=16, blocks=800, dtype=dtype, ids=9000)
    decodes = [bench.run(tokens + 1, tokens) for tokens in (1, 2047, 513, 64)]
    chunks = [chunk(bench.run(1300, 0), 1100), chunk(bench.run(1500, 990), 1500), chunk(bench.run(2001, 1997), 2001)]
    plan = Plan(decodes, chunks)
    close = CLOSE[dtype]
    agree(bench.seen(bench.layout.batch(plan)), bench.expected(plan), rtol=close, atol=close)
    assert not bench.layout._memory.arrivals.any()


@pytest.mark.parametrize("rows", [1, 16])
def test_a_captured_step_is_replayed_over_whatever_it_is_filled_with(rows: int) -> None:
    bench = Bench(architecture(32, 8, 128), block_size=16, blocks=900, dtype=torch.bfloat16, sequences=rows, ids=9000)
    bench.run(1, 0)  # it has the id that padding computes
    step = bench.layout.fixed(rows)

    def compute() -> tuple[torch.Tensor, torch.Tensor]:
        batch = step.begin()
        (view,) = batch.views.values()
        projected = bench._projected[batch.tokens]
        return batch.tokens, view.attend(1, projected, None, bench.shape.attention_scale)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        compute()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens, attended = compute()
    runs = [bench.run(tokens + 1, tokens) for tokens in range(3, 3 + 41 * rows, 41)]
    for some in (runs[: rows // 2 + 1], runs, runs[rows // 3 :], runs):
        plan = Plan(some)
        expected = bench.expected(plan)
        assert step.fill(plan) == some
        graph.replay()
        assert tokens[: len(some)].tolist() == [run.tokens[run.computed] for run in some]
        wanted = expected.attended[bench.shape.kinds[0]][tokens[: len(some)].long()]
        torch.testing.assert_close(attended[: len(some)], wanted, rtol=3e-2, atol=3e-2)
        assert not attended[len(some) :].any()
        torch.testing.assert_close(bench.cache._blocks, expected.cache[bench.shape.kinds[0]], rtol=3e-2, atol=3e-2)
        for run in some:
            bench.grow(run)
