"""A whole model over the paged layout, its norms and gates fused, computes what transformers does."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from shared.engine.torch_engine import activation, norms
from shared.engine.torch_engine.cuda.norms import FusedNorm
from shared.engine.torch_engine.cuda.paged import PagedLayout
from tests.tiny_models import SHAPE, make
from tests.torch_rig import Rig

TOKENS = torch.randint(3, SHAPE["vocab_size"], (16,), generator=torch.Generator().manual_seed(7)).tolist()
LAYERS = ["sliding_attention", "full_attention"]
WHERE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("variant", ["llama", "gemma 3"])
def test_its_logits_agree_with_transformers(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(variant, tmp_path, num_hidden_layers=2, **({"layer_types": LAYERS} if variant == "gemma 3" else {}))
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0][12:]
    for module in (activation, norms):  # on the CPU it is Triton's interpreter that runs them
        monkeypatch.setattr(module, "has_kernels", lambda where: True)
    rig = Rig(tmp_path, prefill_chunk=9, device=WHERE, dtype="float32")
    rig.layout = PagedLayout(rig.architecture, rig.cache, rig.device, torch.float32, sequences=2)
    assert isinstance(rig.model._norm, FusedNorm)
    got = rig.feed("a", TOKENS, prompt=13)
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-3, atol=1e-4)
