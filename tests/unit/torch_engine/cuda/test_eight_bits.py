"""Linear layers of eight bits compute what their rounded weights say, however the work is divided."""

import pytest
import torch

pytest.importorskip("triton")

from shared.engine.torch_engine.cuda import linear
from shared.engine.torch_engine.cuda.linear import Quantised, Shape
from tests.paged_steps import WHERE

SHAPES = [Shape(64, 32, 1, 4, 2), Shape(32, 32, 3, 4, 2)]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(WHERE.where)


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("outputs", "inputs"), [(199, 48), (130, 256)])
@pytest.mark.parametrize("rows", [1, 17])
def test_few_rows(
    monkeypatch: pytest.MonkeyPatch, shape: Shape, outputs: int, inputs: int, rows: int, *, floating: bool
) -> None:
    monkeypatch.setattr(linear, "shape_for", lambda *_: shape)
    weight, bias = random(outputs, inputs), random(outputs) if rows > 1 else None
    layer = Quantised(weight, bias, floating=floating)
    rounded = layer._weight.float() * layer._scale[:, None]
    assert (rounded - weight).norm() < (0.04 if floating else 0.01) * weight.norm()
    x = random(rows, inputs).half()
    wanted = x.float() @ rounded.T + (0 if bias is None else bias)
    for _ in range(2):  # the second time finds what the first has left
        found = layer(x)
        assert found.dtype == torch.float16
        assert (found.float() - wanted).norm() < 1e-3 * wanted.norm()
    assert not layer._arrived.any()


def test_many_rows_go_another_way_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Quantised(random(40, 48), random(40), floating=False)
    x = random(5, 48).half()
    few = layer(x)
    monkeypatch.setattr(linear, "FEW", 4)
    torch.testing.assert_close(layer(x).float(), few.float(), rtol=2e-2, atol=2e-2)
