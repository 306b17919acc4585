"""Every family over several ranks computes what one rank computes."""

from pathlib import Path

import pytest
import torch

from tests.rank_rig import RankRig
from tests.tiny_models import SHAPE, VARIANTS, make
from tests.torch_rig import Rig

TOKENS = torch.randint(3, SHAPE["vocab_size"], (45,), generator=torch.Generator().manual_seed(7)).tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_and_four_ranks_agree_with_transformers(variant: str, tmp_path: Path) -> None:
    model = make(variant, tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0][32:]
    for world in (2, 4):
        with RankRig(tmp_path, world, prefill_chunk=7) as rig:
            got = rig.feed("a", TOKENS, prompt=33)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("world", [2, 4])
def test_quantised_after_it_was_split_it_is_as_good(world: int, tmp_path: Path) -> None:
    make("llama", tmp_path)
    plain = Rig(tmp_path).feed("a", TOKENS, prompt=33)
    with RankRig(tmp_path, world, quantization="int8") as rig:
        got = rig.feed("a", TOKENS, prompt=33)
    alone = Rig(tmp_path, quantization="int8").feed("a", TOKENS, prompt=33)
    assert (got - plain).abs().mean() < 1.3 * (alone - plain).abs().mean()


@pytest.mark.parametrize("world", [2, 4])
def test_a_row_is_the_same_in_whatever_company(world: int, tmp_path: Path) -> None:
    make("gemma 3", tmp_path)
    with RankRig(tmp_path, world) as rig:
        alone = rig.feed("a", TOKENS, prompt=33)
    with RankRig(tmp_path, world, prefill_chunk=5) as rig:
        for number in range(3):
            rig.company(f"other {number}", TOKENS[number : number + 9])
        together = rig.feed("a", TOKENS, prompt=33)
    assert torch.equal(alone, together)
