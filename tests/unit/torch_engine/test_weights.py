"""Reading weights: what is missing or wrong is named, and the identity tells models apart."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shared.engine.torch_engine.weights import Checkpoint, identity, weight_files
from shared.errors import EngineFailed


def model(directory: Path, value: float = 1.0) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}")
    save_file({"a": torch.full((300, 100), value), "b": torch.zeros(3)}, directory / "model.safetensors")
    return directory


def test_tensors_come_in_the_asked_dtype_and_outlive_the_file(tmp_path: Path) -> None:
    with Checkpoint(model(tmp_path)) as checkpoint:
        same = checkpoint.tensor("a", (300, 100), torch.float32)
        cast = checkpoint.tensor("a", (300, 100), torch.bfloat16)
    assert same.sum() == 30_000
    assert (cast.dtype, cast.float().sum()) == (torch.bfloat16, 30_000)


def test_a_missing_tensor_and_a_wrong_shape_are_named(tmp_path: Path) -> None:
    with Checkpoint(model(tmp_path)) as checkpoint:
        with pytest.raises(EngineFailed, match="lm_head"):
            checkpoint.tensor("lm_head.weight", (3,), torch.float32)
        with pytest.raises(EngineFailed, match=r"\(300, 100\).*\(3, 3\)"):
            checkpoint.tensor("a", (3, 3), torch.float32)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="neither"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0rubbish!")
    with pytest.raises(EngineFailed, match="cannot be read"), Checkpoint(tmp_path):
        pass


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_a_broken_index_is_refused(index: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(EngineFailed, match="index"):
        weight_files(tmp_path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/part.safetensors", ".."])
def test_an_index_must_not_lead_out_of_its_directory(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(EngineFailed, match="no plain name"):
        weight_files(tmp_path)


def test_the_identity_follows_the_contents_not_the_place(tmp_path: Path) -> None:
    assert identity(model(tmp_path / "one")) == identity(model(tmp_path / "two"))
    assert identity(model(tmp_path / "one")) != identity(model(tmp_path / "three", value=1.5))
    (tmp_path / "two" / "config.json").write_text('{"rope_theta": 5}')
    assert identity(tmp_path / "one") != identity(tmp_path / "two")
