"""The fused norm and gate compute what torch's own operations do."""

import pytest
import torch
from torch.nn import functional

pytest.importorskip("triton")

from shared.engine.torch_engine.cuda.gates import fused_gate
from shared.engine.torch_engine.cuda.norms import FusedNorm
from shared.engine.torch_engine.cuda.present import has_kernels
from shared.engine.torch_engine.norms import RmsNorm
from tests.paged_steps import WHERE

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # Triton's interpreter uses numpy


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(WHERE.where, dtype)


@pytest.mark.parametrize("size", [16, 48, 640])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_norm_is_the_norm(size: int, dtype: torch.dtype) -> None:
    weight = random(size)
    x, more = random(3, size, dtype=dtype), random(3, size, dtype=dtype) * 2
    fused, plain = FusedNorm(weight, 1e-3), RmsNorm(weight, 1e-3)
    torch.testing.assert_close(fused(x), plain(x))
    both, normed = fused.added(x, more)
    assert torch.equal(both, x + more)
    torch.testing.assert_close(normed, plain(both))
    heads = random(2, 5, size, dtype=dtype)[:, 1:3]  # not contiguous
    torch.testing.assert_close(fused(heads), plain(heads))
    assert fused(x[:0]).shape == (0, size)


@pytest.mark.parametrize("size", [48, 1100])
def test_the_gates_are_the_gates(size: int) -> None:
    both = random(2, 2 * size) * 4
    left, right = both.chunk(2, -1)
    torch.testing.assert_close(fused_gate("silu")(both), functional.silu(left) * right)
    gelu = functional.gelu(left, approximate="tanh") * right
    torch.testing.assert_close(fused_gate("gelu_tanh")(both), gelu, rtol=1e-5, atol=1e-5)


def test_the_gates_of_huge_numbers_are_numbers() -> None:
    huge = torch.tensor([[-1e30, 1e30, 2.0, 3.0]], device=WHERE.where)
    for name in ("silu", "gelu_tanh"):
        torch.testing.assert_close(fused_gate(name)(huge), torch.tensor([[0.0, 3e30]], device=WHERE.where))


def test_the_kernels_are_for_cuda_alone() -> None:
    assert not has_kernels(torch.device("cpu"))
    assert has_kernels(torch.device("cuda:0"))
