"""Every family against transformers: logits through chunked prefill and paged decode, past the sliding window."""

from pathlib import Path

import pytest
import torch

from tests.tiny_models import SHAPE, VARIANTS, edit, make
from tests.torch_rig import Rig

TOKENS = torch.randint(3, SHAPE["vocab_size"], (61,), generator=torch.Generator().manual_seed(7)).tolist()


def expected(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_agree_with_transformers_through_chunked_prefill_and_paged_decode(variant: str, tmp_path: Path) -> None:
    model = make(variant, tmp_path)
    rig = Rig(tmp_path, prefill_chunk=7)
    torch.testing.assert_close(rig.feed("a", TOKENS, prompt=33), expected(model, TOKENS)[32:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prompt", [1, 3, 4, 5, 8, 9])
def test_every_length_around_a_block_and_the_window_agrees(prompt: int, tmp_path: Path) -> None:
    model = make("gemma 3", tmp_path)
    rig = Rig(tmp_path)
    logits = rig.feed("a", TOKENS[:20], prompt=prompt)
    torch.testing.assert_close(logits, expected(model, TOKENS[:20])[prompt - 1 :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["llama 3", "mistral", "gemma 3, one key head, capped"])
def test_sequences_of_different_lengths_decode_together_bit_for_bit_as_alone(variant: str, tmp_path: Path) -> None:
    make(variant, tmp_path)
    texts = {str(start): TOKENS[start : start + 3 + 5 * start] for start in range(9)}
    alone = {key: Rig(tmp_path).feed(key, tokens, prompt=len(tokens) - 2) for key, tokens in texts.items()}
    rig = Rig(tmp_path)
    runs = {key: rig.add(key, tokens[:-2]) for key, tokens in texts.items()}
    rig.step()
    for key, run in runs.items():
        rig.decode(run)
        run.tokens.append(texts[key][-2])
    first = rig.step()
    for key, run in runs.items():
        run.tokens.append(texts[key][-1])
    second = rig.step()
    for key, logits in alone.items():
        assert torch.equal(first[key], logits[1]), key
        assert torch.equal(second[key], logits[2]), key


def test_a_prefix_from_the_cache_gives_the_same_logits(tmp_path: Path) -> None:
    model = make("gemma 3", tmp_path)
    rig = Rig(tmp_path, enable_prefix_cache=True)
    rig.feed("first", TOKENS[:30], prompt=30)
    run = rig.add("second", TOKENS[:45])
    assert run.cached == 28
    torch.testing.assert_close(rig.step()["second"], expected(model, TOKENS[:45])[-1], rtol=1e-4, atol=1e-5)


def test_weights_in_several_files_are_read_by_their_index(tmp_path: Path) -> None:
    model = make("qwen 3", tmp_path, shard="50KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    logits = Rig(tmp_path).feed("a", TOKENS, prompt=40)
    torch.testing.assert_close(logits, expected(model, TOKENS)[39:], rtol=1e-4, atol=1e-5)


def test_the_older_spelling_of_rope_in_config_json_means_the_same(tmp_path: Path) -> None:
    model = make("llama 3", tmp_path)
    parameters = dict(model.config.rope_parameters)
    theta = parameters.pop("rope_theta")
    edit(tmp_path, rope_parameters=None, rope_theta=theta, rope_scaling=parameters)
    logits = Rig(tmp_path).feed("a", TOKENS, prompt=50)
    torch.testing.assert_close(logits, expected(model, TOKENS)[49:], rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    model = make("qwen 2", tmp_path)
    logits = Rig(tmp_path, dtype="bfloat16").feed("a", TOKENS, prompt=40)
    difference = (logits.float() - expected(model, TOKENS)[39:]).norm() / expected(model, TOKENS)[39:].norm()
    assert difference < 0.05


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_int8_weights_stay_near_the_full_ones_for_few_rows_and_for_many(dtype: str, tmp_path: Path) -> None:
    model = make("gemma 3", tmp_path)
    logits = Rig(tmp_path, quantization="int8", dtype=dtype).feed("a", TOKENS, prompt=40)  # 40 rows, then one
    difference = (logits.float() - expected(model, TOKENS)[39:]).norm() / expected(model, TOKENS)[39:].norm()
    assert 0 < difference < 0.1
