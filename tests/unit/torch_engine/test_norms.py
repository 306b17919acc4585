"""The norm on the CPU: torch's own to the last digits but one, and the same to the bit in any company."""

import pytest
import torch

from shared.engine.torch_engine.cpu.norms import ShortNorm, beside
from shared.engine.torch_engine.norms import RmsNorm, norm

ROWS = torch.randn((131, 640), generator=torch.Generator().manual_seed(2)) * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_rms_norm(dtype: torch.dtype) -> None:
    weight = torch.rand(640, generator=torch.Generator().manual_seed(3))
    expected = RmsNorm(weight, 1e-6)(ROWS.to(dtype))
    got = norm(weight, 1e-6)(ROWS.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected)
    both, normed = norm(weight, 1e-6).added(ROWS.to(dtype), ROWS.to(dtype))
    assert torch.equal(both, ROWS.to(dtype) * 2)
    torch.testing.assert_close(normed, expected)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [24, 256, 639, 640])
def test_a_row_has_the_same_bits_alone_and_beside_others(size: int, threads: int) -> None:
    torch.set_num_threads(threads)
    normed = ShortNorm(torch.rand(size, generator=torch.Generator().manual_seed(4)), 1e-6)
    rows = ROWS[:, :size].contiguous()
    together = normed(rows)
    for start, stop in ((0, 1), (3, 5), (64, 131), (130, 131)):
        assert torch.equal(normed(rows[start:stop]), together[start:stop])


def test_two_norms_beside_each_other_are_each_of_them() -> None:
    heads = ROWS.view(131, 5, 128)
    query, key = (ShortNorm(torch.rand(128, generator=torch.Generator().manual_seed(n)), 1e-6) for n in (5, 6))
    both = beside((query, key), (4, 1))(heads)
    assert torch.equal(both, torch.cat((query(heads[:, :4]), key(heads[:, 4:])), 1))
