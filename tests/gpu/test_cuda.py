"""The torch engine on an accelerator: the same numbers as transformers on the CPU, the same KV across devices."""

from pathlib import Path

import pytest
import torch

from shared.messages import Stopping
from tests.engine_house import house, ids, relay
from tests.tiny_models import SHAPE, VARIANTS, edit, make
from tests.torch_rig import Rig, sequence

pytestmark = pytest.mark.gpu

TOKENS = torch.randint(3, SHAPE["vocab_size"], (61,), generator=torch.Generator().manual_seed(7)).tolist()
WHERE = {"device": "cuda", "dtype": "float32"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_on_the_device_agree_with_transformers_on_the_cpu(variant: str, tmp_path: Path) -> None:
    model = make(variant, tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0][32:]
    got = Rig(tmp_path, prefill_chunk=7, **WHERE).feed("a", TOKENS, prompt=33)
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-3, atol=1e-4)


async def test_a_kv_cache_computed_on_the_device_is_decoded_on_the_cpu_and_the_other_way_round(tmp_path: Path) -> None:
    make("gemma 3", tmp_path)
    edit(tmp_path, eos_token_id=None, max_position_embeddings=1024)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    wanted = sequence("a", TOKENS[:40], stopping=Stopping(max_tokens=12))
    async with house("torch", tmp_path, **WHERE) as there, house("torch", tmp_path) as here:
        device, cpu = await there.worker(), await here.worker()
        assert device.engine.info.fingerprint == cpu.engine.info.fingerprint
        texts = [ids(await relay(*pair, wanted)) for pair in ((device, cpu), (cpu, device), (cpu, cpu))]
    assert texts[0] == texts[2]
    assert texts[1] == texts[2]


async def test_replaying_on_the_device_draws_the_same_tokens(tmp_path: Path) -> None:
    make("llama 3", tmp_path)
    edit(tmp_path, eos_token_id=None, max_position_embeddings=1024)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    async with house("torch", tmp_path, **WHERE) as there:
        one, other = await there.worker(), await there.worker()
        whole = ids(await relay(one, other, sequence("a", TOKENS[:20], max_tokens=16, temperature=0.8, seed=5)))
        replay = sequence("b", [*TOKENS[:20], *whole[:7]], 20, max_tokens=16, temperature=0.8, seed=5)
        assert whole[:7] + ids(await relay(one, other, replay)) == whole
