"""In float32 on the CPU a token's keys, values and logits are the same to the bit, by whatever way they are computed.

The way of comparison is: a prompt of a few tokens, all others decoded one by one, alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.sequence import Run
from shared.engine.torch_engine.steady import NONE, fewest_rows
from tests.tiny_models import SHAPE, VARIANTS, make
from tests.torch_rig import Rig

STEADY = resolve("cpu").packs and fewest_rows(256) != NONE
pytestmark = pytest.mark.skipif(not STEADY, reason="torch without oneDNN, or a processor without AVX-512")

TOKENS = torch.randint(3, SHAPE["vocab_size"], (700,), generator=torch.Generator().manual_seed(11)).tolist()
BEGUN = 3
LARGE = {"max_position_embeddings": 1024, "head_dim": 256, "sliding_window": 450, "num_hidden_layers": 2}
LARGE_LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "num_key_value_heads": 1}
EDGES = (4, 31, 32, 33, 65, 257, 310, 385, 400, 450, 483, 490, 511, 512, 513, 575, 640, 699)


@dataclass(frozen=True)
class Decoded:
    """What decoding gave: after each token its logits, and of each token the keys and values."""

    logits: dict[int, torch.Tensor]  # by the number of tokens before
    kv: torch.Tensor  # [tokens, layers, 2, kv_heads, head_dim]


OFTEN = ("llama 3", "qwen 3", "gemma 3")
"""Each is ten seconds and more; together they have all that the families differ in. The others are long."""


def rows_of(rig: Rig, run: Run, tokens: int) -> torch.Tensor:
    """The keys and values of the sequence's first tokens."""
    return rig.cache._blocks[run.blocks].transpose(1, 3).transpose(2, 3).flatten(0, 1)[:tokens].clone()


def decoded(rig: Rig, tokens: list[int]) -> Decoded:
    run = rig.add("decoded", tokens[:BEGUN])
    logits = {BEGUN: rig.step()["decoded"]}
    rig.decode(run)
    for number, token in enumerate(tokens[BEGUN:], BEGUN + 1):
        run.tokens.append(token)
        logits[number] = rig.step()["decoded"]
    kv = rows_of(rig, run, len(tokens))
    rig.scheduler.drop("decoded")
    return Decoded(logits, kv)


def prompted(rig: Rig, tokens: list[int]) -> Run:
    """The tokens as a prompt, but for its logits: they are the next step's."""
    run = rig.add("continued", tokens)
    while len(tokens) - run.computed > rig.scheduler._chunk:
        assert not rig.step()
    return run


def check_continuation(rig: Rig, tokens: list[int], expected: Decoded) -> None:
    run = prompted(rig, tokens)
    logits = rig.step()["continued"]
    assert torch.equal(rows_of(rig, run, len(tokens)), expected.kv[: len(tokens)]), len(tokens)
    assert torch.equal(logits, expected.logits[len(tokens)]), len(tokens)
    rig.scheduler.drop("continued")


@pytest.mark.parametrize("variant", [v if v in OFTEN else pytest.param(v, marks=pytest.mark.long) for v in VARIANTS])
def test_a_continuation_at_any_position_has_the_bits_of_the_decoding_it_continues(variant: str, tmp_path: Path) -> None:
    make(variant, tmp_path)
    tokens = TOKENS[:80]
    expected = decoded(Rig(tmp_path), tokens)
    for chunk in (1, 7, 33, 512):
        rig = Rig(tmp_path, prefill_chunk=chunk, enable_prefix_cache=False)
        for position in range(BEGUN + 1, len(tokens) + 1, 1 if chunk == 512 else 9):
            check_continuation(rig, tokens[:position], expected)


@pytest.mark.parametrize("block_size", [1, 5, 16, 24, 128])
def test_it_holds_for_any_block_size(block_size: int, tmp_path: Path) -> None:
    make("gemma 3", tmp_path)
    expected = decoded(Rig(tmp_path, num_blocks=200), TOKENS[:150])
    rig = Rig(tmp_path, block_size=block_size, num_blocks=400, prefill_chunk=100)
    for position in (5, 16, 63, 101, 150):
        check_continuation(rig, TOKENS[:position], expected)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads as large as Gemma's, a window and more keys than the kernel takes at once."""
    directory = tmp_path_factory.mktemp("large")
    make("gemma 3", directory, **LARGE, **LARGE_LAYERS)
    return directory


@pytest.fixture(scope="module")
def long_text(large: Path) -> Iterator[Decoded]:
    return decoded(Rig(large, block_size=16, num_blocks=60), TOKENS)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("chunk", [50, 64, 300, 512])
def test_it_holds_past_the_window_and_past_512_keys(large: Path, long_text: Decoded, chunk: int, threads: int) -> None:
    torch.set_num_threads(threads)
    rig = Rig(large, block_size=16, num_blocks=60, prefill_chunk=chunk, enable_prefix_cache=False)
    for position in EDGES:
        check_continuation(rig, TOKENS[:position], long_text)


@pytest.mark.parametrize("cached", [16, 48, 64, 112, 496, 512, 528])
def test_it_holds_over_a_prefix_from_the_cache(cached: int, large: Path, long_text: Decoded) -> None:
    rig = Rig(large, block_size=16, num_blocks=60, enable_prefix_cache=True)
    rig.feed("first", TOKENS[: cached + 3], prompt=cached + 3)
    for position in (cached + 1, cached + 90):
        run = rig.add("asked", TOKENS[:position])
        assert run.cached == cached
        rig.scheduler.drop("asked")
    check_continuation(rig, TOKENS[: cached + 90], long_text)
    check_continuation(rig, TOKENS[: cached + 1], long_text)


def test_it_holds_whoever_shares_the_steps(large: Path, long_text: Decoded) -> None:
    rig = Rig(large, block_size=16, num_blocks=200, prefill_chunk=150, enable_prefix_cache=False)
    runs = {str(n): rig.add(str(n), TOKENS[n : 2 + 40 * n]) for n in range(1, 8)}
    runs["mine"] = rig.add("mine", TOKENS[:520])
    mine = runs["mine"]
    decoding: set[str] = set()
    compared = 0
    while compared < 80:
        for key, logits in rig.step().items():
            if key == "mine":
                assert torch.equal(logits, long_text.logits[mine.computed]), mine.computed
                compared += 1
            if key not in decoding:
                decoding.add(key)
                rig.decode(runs[key])
            runs[key].tokens.append(TOKENS[len(runs[key].tokens)])
    assert torch.equal(rows_of(rig, mine, mine.computed), long_text.kv[: mine.computed])
