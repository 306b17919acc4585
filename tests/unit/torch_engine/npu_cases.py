"""The torch engine on a device called `npu`: cases for a process of their own, which `test_npu.py` starts.

It makes the models, too: transformers must not be imported where a torch_npu that is none can be found.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shared.engine.torch_engine.device import resolve
from shared.engine.torch_engine.health import devices_of, probe
from shared.errors import ConfigError
from shared.messages import Health
from tests.npu_backend import DTYPES, OPERATORS
from tests.torch_rig import Rig
from tests.unit.torch_engine.engine.running import PROMPT, prefilled, relay, running

FLOAT32 = {"dtype": "float32"}
NPU = {"device": "npu", **FLOAT32}
MODELS = Path(os.environ["NPU_MODELS"])
TOKENS = torch.randint(3, 199, (28,), generator=torch.Generator().manual_seed(5)).tolist()


@pytest.fixture(scope="module", autouse=True)
def _report() -> Iterator[None]:
    """Leave behind which operators ran on the device."""
    yield
    if path := os.environ.get("NPU_OPERATORS"):
        Path(path).write_text(json.dumps(dict(OPERATORS)))


@pytest.fixture
def model() -> Path:
    return MODELS / "gemma 3"


@pytest.mark.parametrize("variant", sorted(path.name for path in MODELS.iterdir()))
def test_prompts_and_steps_give_the_logits_of_the_processor(variant: str) -> None:
    expected = Rig(MODELS / variant).feed("a", TOKENS, 22)
    rig = Rig(MODELS / variant, device="npu", prefill_chunk=9)
    for _ in range(2):  # from nothing, then on blocks that were found in the prefix cache
        found = rig.feed("a", TOKENS, 22)
        assert found.device == torch.device("npu:0")
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantization", ["none", "int8"])
async def test_a_request_crosses_from_npu_to_npu_and_between_npu_and_processor(model: Path, quantization: str) -> None:
    own = {"quantization": quantization}
    async with (
        running(model, **NPU, **own) as a,
        running(model, **NPU, **own) as b,
        running(model, **FLOAT32, **own) as c,
    ):
        assert a.info == b.info == c.info
        assert a.devices == frozenset({"npu:0"})
        for sampling in (
            {},
            {"temperature": 0.9, "seed": 4, "top_p": 0.9, "top_k": 50, "min_p": 0.01, "logprobs": 3},
            {
                "temperature": 0.8,
                "seed": 3,
                "frequency_penalty": 0.5,
                "repetition_penalty": 1.2,
                "logit_bias": {7: 2.0},
            },
        ):
            whole = await relay(a, a, "alone", PROMPT, max_tokens=4, **sampling)
            # int8 is multiplied by another kernel on the processor, which rounds in other places
            ways = ((a, b), (a, c), (c, a), (c, c)) if quantization == "none" else ((a, b),)
            for number, (first, second) in enumerate(ways):
                assert await relay(first, second, f"{number}", PROMPT, max_tokens=4, **sampling) == whole, number


async def test_the_kv_that_leaves_an_npu_is_that_of_the_processor(model: Path) -> None:
    async with running(model, **NPU) as npu, running(model, **FLOAT32) as cpu:
        for length in (1, 4, 17):
            (_, ours), (_, theirs) = [await prefilled(one, "a", TOKENS[:length]) for one in (npu, cpu)]
            found, expected = (torch.frombuffer(one, dtype=torch.float32) for one in (ours, theirs))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


async def test_bfloat16_is_the_dtype_that_an_npu_takes_by_itself(model: Path) -> None:
    async with running(model, device="npu:1") as a, running(model, device="npu:1") as b:
        assert len(await relay(a, b, "a", PROMPT, max_tokens=6)) == 6
        assert a.info.block_bytes == 4 * 2 * 4 * 24 * 2 * 2  # layers, K and V, tokens, head, heads, bytes


def test_no_number_on_the_device_is_wider_than_an_npu_takes() -> None:
    assert torch.bfloat16 in DTYPES
    assert torch.float64 not in DTYPES, "an NPU hands it to its slow processors, where it can at all"


def test_a_device_that_is_there_is_well_and_one_that_is_not_cannot_be_used() -> None:
    assert probe("npu:1") == (Health.OK, "")
    assert probe("npu:2")[0] is Health.FAILED
    assert devices_of("npu") == {"npu:0"}
    with pytest.raises(ConfigError, match="'npu:2' cannot be used"):
        resolve("npu:2")


def test_the_device_refuses_what_a_real_one_refuses() -> None:
    on_npu = torch.ones(3, device="npu")
    with pytest.raises(RuntimeError, match="same device"):
        on_npu + torch.ones(3)
    with pytest.raises(RuntimeError):
        on_npu.numpy()
