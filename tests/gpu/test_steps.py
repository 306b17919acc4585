"""Steps on an accelerator: graphs give what steps launched singly give, and no step waits for the device."""

from pathlib import Path
from typing import Any

import pytest
import torch

from shared.engine import Sampled
from shared.engine.torch_engine.runner import Runner
from shared.messages import Stopping
from tests.tiny_models import edit, make
from tests.torch_rig import sequence
from tests.unit.torch_engine.overlapping import Driver, opened

pytestmark = pytest.mark.gpu

KINDS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9, "seed": 3},
    {"temperature": 1.0, "seed": 4, "top_p": 0.8, "top_k": 30, "logprobs": 2},
    {"logprobs": 0},
    {"logit_bias": {11: 3.0}, "temperature": 0.5, "min_p": 0.01},
    {"repetition_penalty": 1.4},
]
DECODES = 12


def model(directory: Path, variant: str = "gemma 3") -> Path:
    make(variant, directory)
    edit(directory, eos_token_id=None)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


def texts(directory: Path, kinds: list[dict[str, Any]], **options: Any) -> dict[str, list[Sampled]]:
    """Of a load that comes little by little, with ends at different places."""
    wanted: dict[str, Any] = {"device": "cuda", "dtype": "float32", "max_num_seqs": 11, "num_blocks": 200, **options}
    with opened(directory, **wanted) as runner:
        driver = Driver(runner)
        for place in range(11):
            stopping = Stopping(max_tokens=5 + 3 * place)
            prompt = [5 + place, *range(20, 20 + place)]
            driver.ask(sequence(str(place), prompt, stopping=stopping, **kinds[place % len(kinds)]))
            driver.turn()
        driver.run()
        assert not driver.failed
        assert (runner._executor._graphs is not None) is wanted.get("cuda_graphs", True)  # type: ignore[attr-defined]
    return driver.sampled


@pytest.mark.parametrize("variant", ["llama 3", "gemma 3", "qwen 3"])
def test_graphs_and_overlap_change_no_text(variant: str, tmp_path: Path) -> None:
    directory = model(tmp_path, variant)
    plain = texts(directory, KINDS, overlaps=False, cuda_graphs=False)
    assert [len(text) for text in plain.values()] == [5 + 3 * place for place in range(11)]
    for changed in ({"cuda_graphs": True}, {"overlaps": True}, {"cuda_graphs": True, "overlaps": True}):
        found = texts(directory, KINDS, **{"overlaps": False, "cuda_graphs": False, **changed})
        for key, text in plain.items():
            assert [one[:4] for one in found[key]] == [one[:4] for one in text], (changed, key)


def in_the_air(runner: Runner, kinds: list[dict[str, Any]]) -> Driver:
    driver = Driver(runner)
    for place, kind in enumerate(kinds):
        driver.ask(sequence(str(place), [5 + place, 20, 21], max_tokens=40, **kind))
    while any(len(text) < 4 for text in driver.sampled.values()):
        driver.turn()
    return driver


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("kinds", [KINDS[:1] * 3, KINDS], ids=["greedy", "all kinds"])
def test_no_step_waits_for_the_device_but_for_its_tokens(
    tmp_path: Path, kinds: list[dict[str, Any]], *, cuda_graphs: bool
) -> None:
    wanted = {"device": "cuda", "num_blocks": 200, "overlaps": True, "cuda_graphs": cuda_graphs}
    with opened(model(tmp_path), **wanted) as runner:
        driver = in_the_air(runner, kinds)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(DECODES):
                driver.turn()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(len(text) >= 4 + DECODES - 1 for text in driver.sampled.values())
        driver.run()


def test_a_batch_larger_than_a_few_rows_is_padded_to_the_next_graph(tmp_path: Path) -> None:
    directory = model(tmp_path, "llama")
    found = []
    for cuda_graphs in (True, False):
        with opened(
            directory,
            device="cuda",
            dtype="float32",
            overlaps=True,
            cuda_graphs=cuda_graphs,
            max_num_seqs=19,
            num_blocks=400,
        ) as runner:
            driver = Driver(runner)
            for place in range(19):
                driver.ask(sequence(str(place), [5 + place, 9, 3], max_tokens=3 + place))
            driver.run()
            found.append({key: [one.token_id for one in text] for key, text in driver.sampled.items()})
    assert found[0] == found[1]
