"""With int8 weights a token's keys, values and logits are the same by every way too: its sums are exact."""

from pathlib import Path

import pytest
import torch

from shared.engine.torch_engine.device import resolve
from tests.tiny_models import make
from tests.torch_rig import Rig
from tests.unit.torch_engine.test_steadiness import STEADY, TOKENS, check_continuation, decoded

EXACT = resolve("cpu").exact_int8
pytestmark = pytest.mark.skipif(not STEADY or not EXACT, reason="a processor without AVX-512 and VNNI")


@pytest.mark.parametrize("variant", ["gemma 3", "qwen 2"])
def test_a_continuation_has_the_bits_of_the_decoding_it_continues(variant: str, tmp_path: Path) -> None:
    make(variant, tmp_path)
    tokens = TOKENS[:60]
    expected = decoded(Rig(tmp_path, quantization="int8"), tokens)
    for chunk in (7, 512):
        rig = Rig(tmp_path, quantization="int8", prefill_chunk=chunk, enable_prefix_cache=False)
        for number in (4, 33, 60):
            check_continuation(rig, tokens[:number], expected)


def test_a_row_has_the_same_logits_whoever_else_is_in_the_step(tmp_path: Path) -> None:
    make("llama 3", tmp_path)
    alone = Rig(tmp_path, quantization="int8").feed("a", TOKENS[:40], prompt=30)
    rig = Rig(tmp_path, quantization="int8")
    others = [rig.add(f"other {number}", TOKENS[number : number + 20 + number]) for number in range(5)]
    first = rig.step()
    assert len(first) == len(others)
    for run in others:
        rig.decode(run)
    run = rig.add("a", TOKENS[:30])
    seen = []
    for token in [*TOKENS[30:40], None]:
        for other in others:
            other.tokens.append(3)
        seen.append(rig.step()["a"])
        if len(seen) == 1:
            rig.decode(run)
        if token is not None:
            run.tokens.append(token)
    assert torch.equal(torch.stack(seen), alone)
