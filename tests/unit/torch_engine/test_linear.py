"""Linear layers: right, and the same for a row whatever other rows share the call."""

import dataclasses

import pytest
import torch

from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.linear import Dense, Int8, Packed, linear
from shared.errors import ConfigError

CPU = resolve("cpu")
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


@pytest.mark.parametrize("rows", [1, 16, 17, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_errs_by_a_percent_fused_or_not(rows: int, dtype: torch.dtype) -> None:
    w, x, bias = weight(640, 512).to(dtype), torch.randn(rows, 640).to(dtype), torch.randn(512).to(dtype)
    layer = linear(CPU, w, bias, quantization="int8")
    assert isinstance(layer, Int8)
    exact = Dense(w.float(), bias.float())(x.float())
    got = layer(x)
    assert got.dtype == dtype
    assert (got.float() - exact).norm() / exact.norm() < 0.02


def test_int8_of_a_row_of_zeros_is_zero() -> None:
    layer = linear(CPU, torch.zeros(32, 64), quantization="int8")
    assert torch.equal(layer(torch.ones(1, 64)), torch.zeros(1, 32))


def test_without_packing_the_plain_layer_is_used() -> None:
    assert isinstance(linear(dataclasses.replace(CPU, packs=False), weight(24, 199)), Dense)
    assert isinstance(linear(CPU, weight(24, 199).half()), Dense)


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "npu", "", "cpu-fast"])
def test_a_device_that_is_not_there_is_refused_with_a_reason(name: str) -> None:
    if name.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="device"):
        resolve(name)
