"""The search for the likeliest token on the CPU finds what argmax finds, in pieces."""

import math

import pytest
import torch

from shared.engine.sampling.likeliest import WIDTH, likeliest

INF, NAN = math.inf, math.nan


def by_argmax(logits: torch.Tensor) -> list[int]:
    places = logits.argmax(-1).tolist()
    return [place if math.isfinite(row[place]) else -1 for place, row in zip(places, logits.tolist(), strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [7, 2 * WIDTH, 2 * WIDTH + 1, 5000, 32_000])
def test_it_is_the_first_of_the_greatest_wherever_it_stands(vocabulary: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn((60, vocabulary), generator=generator).to(dtype)  # few digits: many equals
    for row in range(40):
        logits[row, (row * 131) % vocabulary] = 9.0
        logits[row, (row * 257) % vocabulary] = 9.0
    logits[40, -1] = logits[41, 0] = logits[42, -2:] = 9.0
    assert likeliest(logits).tolist() == by_argmax(logits)
    assert likeliest(-logits.abs() - 1).tolist() == by_argmax(-logits.abs() - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [40, 5000])
def test_what_is_no_number_is_told_and_zeros_of_both_signs_are_equal(vocabulary: int, dtype: torch.dtype) -> None:
    logits = torch.randn((8, vocabulary), generator=torch.Generator().manual_seed(1)).to(dtype)
    logits[0, 17], logits[1, -1], logits[2], logits[3], logits[4] = NAN, INF, -INF, NAN, -NAN
    logits[5], logits[6] = -0.0, -1.0
    logits[5, 9], logits[6, 30] = 0.0, -0.0
    assert likeliest(logits).tolist() == [-1, -1, -1, -1, -1, by_argmax(logits[5:6])[0], 30, by_argmax(logits[7:])[0]]
