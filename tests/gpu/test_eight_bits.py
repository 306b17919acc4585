"""Linear layers of eight bits, and the thresholds of sampling, as their kernels compute them."""

import math

import pytest
import torch

from shared.engine.sampling.bisection import bisection
from shared.engine.sampling.filters import _sorted_cut
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.linear import linear
from shared.messages import Sampling

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("quantization", "error"), [("int8", 0.012), ("fp8", 0.05)])
@pytest.mark.parametrize(("outputs", "inputs"), [(199, 48), (4096, 4096), (512, 14336), (28672, 512)])
@pytest.mark.parametrize("rows", [1, 7, 16, 33, 64, 65, 300])
def test_eight_bits_come_near_the_weight(quantization: str, error: float, outputs: int, inputs: int, rows: int) -> None:
    generator = torch.Generator("cuda").manual_seed(rows)
    weight = torch.randn((outputs, inputs), generator=generator, device="cuda") / math.sqrt(inputs)
    bias = torch.randn(outputs, generator=generator, device="cuda") if rows % 2 else None
    layer = linear(resolve("cuda"), weight.bfloat16(), bias, quantization=quantization)
    x = torch.randn((rows, inputs), generator=generator, device="cuda").bfloat16()
    wanted = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    found = [layer(x).double() for _ in range(3)]
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert float((found[0] - wanted).norm() / wanted.norm()) < error


@pytest.mark.parametrize("spread", [0.1, 2.0, 8.0])
def test_thresholds_without_a_sort_keep_what_a_sort_keeps(spread: float) -> None:
    device = resolve("cuda")
    bisect = bisection(device.where)
    assert bisect is not None
    generator = torch.Generator("cuda").manual_seed(0)
    scaled = spread * torch.randn((6, 128_256), generator=generator, device="cuda")
    scaled[:, 100:5000] = -math.inf
    scaled -= scaled.amax(-1, keepdim=True)
    asked = [(0, 0.9), (7, 1.0), (50, 0.5), (0, 0.0), (0, 1.0), (5000, 0.97)]
    samplings = [Sampling(top_k=top_k, top_p=top_p) for top_k, top_p in asked]
    wanted = scaled >= _sorted_cut(scaled, samplings, device)[:, None]
    top_k, top_p = (torch.tensor(column, device="cuda") for column in zip(*asked, strict=True))
    found = scaled >= bisect(scaled, top_k, top_p)[:, None]
    wrong = (wanted != found).sum(1)
    assert (wrong <= wanted.sum(1) * 1e-4).all(), wrong  # a sum of another order may move the last one kept
