"""Linear layers: right, and the same for a row whatever other rows share the call."""

import dataclasses

import pytest
import torch

from shared.engine.torch_engine.cpu.int8 import OUTPUTS, Int8
from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.linear import Dense, Lone, Packed, WeightOnly, linear
from shared.errors import ConfigError

CPU = resolve("cpu")
EIGHT_BITS = pytest.mark.skipif(not CPU.exact_int8, reason="a processor without VNNI, or torch without oneDNN")
SHAPES = [(640, 1536), (2048, 640), (640, 4096), (24, 199), (80, 48)]


def weight(inputs: int, outputs: int) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(inputs)) * inputs**-0.5


@pytest.mark.skipif(not CPU.packs, reason="torch without oneDNN")
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_comes_out_bit_for_bit_the_same_alone_and_among_others(inputs: int, outputs: int, threads: int) -> None:
    torch.set_num_threads(threads)
    layer = linear(CPU, weight(inputs, outputs))
    assert isinstance(layer, Packed)
    x = torch.randn(130, inputs, generator=torch.Generator().manual_seed(1))
    together = layer(x)
    for rows in (1, 2, 3, 5, 8, 16, 17, 33, 64, 129):
        assert torch.equal(layer(x[:rows].clone()), together[:rows]), rows


@pytest.mark.parametrize("rows", [1, 2, 70])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_and_plain_layers_agree(rows: int, biased: bool) -> None:  # noqa: FBT001
    w, x = weight(80, 48), torch.randn(rows, 80)
    bias = torch.randn(48) if biased else None
    torch.testing.assert_close(linear(CPU, w, bias)(x), Dense(w, bias)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=EIGHT_BITS)])
@pytest.mark.parametrize("rows", [1, 16, 17, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_errs_by_a_percent_in_every_form(exact: bool, rows: int, dtype: torch.dtype) -> None:  # noqa: FBT001
    w, x, bias = weight(640, 512).to(dtype), torch.randn(rows, 640).to(dtype), torch.randn(512).to(dtype)
    w *= torch.logspace(-3, 1, 512)[:, None].to(dtype)  # an output's scale must be its own
    x *= torch.logspace(-4, 4, rows)[:, None].to(dtype)  # and so must a row's
    before = w.clone()
    device = dataclasses.replace(CPU, exact_int8=exact)
    layer = linear(device, w, quantization="int8")
    assert isinstance(layer, WeightOnly if not exact else Int8 if dtype == torch.float32 else Lone)
    assert torch.equal(w, before), "an embedding may be the head's weight too"
    got = layer(x)
    assert got.dtype == dtype
    expected = x.double().norm(dim=1)[:, None] * w.double().norm(dim=1) / 640**0.5  # how large a result is
    error = (got.double() - x.double() @ w.double().T).div(expected).square()
    assert error.mean(0).max().sqrt() < (0.05 if rows == 1 else 0.02)
    assert error.mean(1).max().sqrt() < 0.02
    assert torch.equal(linear(device, w, bias, quantization="int8")(x), got + bias)


@EIGHT_BITS
def test_an_outlier_costs_the_other_numbers_of_its_row_nothing() -> None:
    w = torch.eye(64)  # kept by eight bits as it is
    x = torch.rand(3, 64, generator=torch.Generator().manual_seed(3))
    x[:, 7] = 100.0
    error = (linear(CPU, w, quantization="int8")(x) - x).abs().max()
    assert error < 100 / 127 / 128 * 1.01  # of one digit it would be a hundred times that
    assert error > 0


@EIGHT_BITS
@pytest.mark.parametrize(("inputs", "outputs"), [*SHAPES, (64, 2 * OUTPUTS + 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_int8_row_comes_out_bit_for_bit_the_same_in_any_company_and_on_any_threads(
    inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    w, x = weight(inputs, outputs).to(dtype), torch.randn(130, inputs, generator=torch.Generator().manual_seed(1))
    layer = linear(CPU, w, torch.randn(outputs).to(dtype), quantization="int8")
    x = x.to(dtype)
    together = layer(x)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for rows in (1, 2, 3, 5, 8, 16, 17, 33, 64, 129, 130):
            if rows > 1 or dtype == torch.float32:  # in bfloat16 one row by itself goes another way
                assert torch.equal(layer(x[-rows:].clone()), together[-rows:]), (threads, rows)


@pytest.mark.parametrize("inputs", [24, 33, 40, 64])
def test_a_row_of_any_length_meets_weights_alone_within_what_eight_bits_cost(inputs: int) -> None:
    w, x = weight(inputs, 199), torch.randn(1, inputs, generator=torch.Generator().manual_seed(2))
    got = WeightOnly(w, None, fused_rows=16)(x)
    assert (got - x @ w.T).abs().max() < 0.05 * x.norm()  # one number read past the row's end could be anything


@EIGHT_BITS
def test_int8_sums_are_exact() -> None:
    w = torch.randint(-127, 128, (96, 640), generator=torch.Generator().manual_seed(4)).float()
    x = torch.randint(-127, 128, (70, 640), generator=torch.Generator().manual_seed(5)).float()
    w[:, 0], x[:, 0] = 127, 127  # every scale is one
    got = linear(CPU, w, quantization="int8")(x)
    # the result is scaled by 1 / 127^2 and back, in float32
    torch.testing.assert_close(got.double(), x.double() @ w.double().T, rtol=3e-7, atol=0)


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=EIGHT_BITS)])
def test_int8_of_zeros_is_zero(exact: bool) -> None:  # noqa: FBT001
    device = dataclasses.replace(CPU, exact_int8=exact)
    assert torch.equal(linear(device, torch.zeros(32, 64), quantization="int8")(torch.ones(1, 64)), torch.zeros(1, 32))
    layer = linear(device, weight(64, 32), quantization="int8")
    assert torch.equal(layer(torch.zeros(2, 64)), torch.zeros(2, 32))


@EIGHT_BITS
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_not_a_number_stays_visible_in_its_row_and_in_no_other(wrong: float) -> None:
    x = torch.ones(3, 64)
    x[1, 5] = wrong
    finite = torch.isfinite(linear(CPU, weight(64, 32), quantization="int8")(x))
    assert finite[[0, 2]].all()
    assert not finite[1].any()


def test_without_packing_the_plain_layer_is_used() -> None:
    assert isinstance(linear(dataclasses.replace(CPU, packs=False), weight(24, 199)), Dense)
    assert isinstance(linear(CPU, weight(24, 199).half()), Dense)


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "npu", "", "cpu-fast"])
def test_a_device_that_is_not_there_is_refused_with_a_reason(name: str) -> None:
    if name.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="device"):
        resolve(name)
