"""The gates of the feed-forward: right, and the same for a row whatever other rows share the call."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from shared.engine.torch_engine.activation import activation
from shared.engine.torch_engine.device import resolve

CPU = resolve("cpu")


@pytest.mark.parametrize("name", ["silu", "gelu"])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [199, 864, 2048])
def test_a_row_comes_out_bit_for_bit_the_same_alone_and_among_others(name: str, threads: int, width: int) -> None:
    torch.set_num_threads(threads)
    act = activation(name, CPU, torch.float32)
    gates = torch.randn((130, 2 * width), generator=torch.Generator().manual_seed(width)).chunk(2, dim=-1)[0]
    together = act(gates)
    for rows in (1, 2, 3, 11, 17, 34, 49, 100, 129):
        assert torch.equal(act(gates[:rows]), together[:rows]), rows


@pytest.mark.parametrize("steady", [True, False])
def test_silu_and_gelu_are_torchs(steady: bool) -> None:  # noqa: FBT001
    device = dataclasses.replace(CPU, steady=steady)
    x = torch.cat((torch.linspace(-12, 12, 1001), torch.tensor([0.0, -1e4, 1e4, -1e30, 1e30])))
    silu, gelu = (activation(name, device, torch.float32)(x) for name in ("silu", "gelu"))
    torch.testing.assert_close(silu, functional.silu(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gelu, functional.gelu(x, approximate="tanh"), rtol=1e-5, atol=1e-6)


def test_in_bfloat16_it_is_the_fused_one() -> None:
    x = torch.randn(64).bfloat16()
    assert torch.equal(activation("gelu", CPU, torch.bfloat16)(x), functional.gelu(x, approximate="tanh"))
