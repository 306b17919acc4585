"""The tensors of a Hugging Face directory: one safetensors file or an index of several, read through mmap.

Owns file access and the identity of the weights. Knows no layer.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open

from shared.errors import EngineFailed

SAMPLES = 64
SAMPLE_BYTES = 4096


class Checkpoint:
    """Open safetensors files. Tensors are views of the mapped files until they are converted."""

    def __init__(self, directory: Path) -> None:
        self._files = weight_files(directory)
        self._stack = ExitStack()
        self._where: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            for path in self._files:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
                self._where.update(dict.fromkeys(file.keys(), file))
        except (OSError, SafetensorError) as error:
            self._stack.close()
            raise EngineFailed(f"weights cannot be read: {error}", fatal=True) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def tensor(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, part: tuple[slice, ...] = ()
    ) -> torch.Tensor:
        """That part of the tensor as `dtype`. Raises EngineFailed when it is missing or, whole, of another shape."""
        if name not in self._where:
            raise EngineFailed(f"the weights lack the tensor {name}", fatal=True)
        found: torch.Tensor = self._where[name].get_tensor(name)
        if tuple(found.shape) != shape:
            message = f"the tensor {name} is {tuple(found.shape)}, and config.json asks for {shape}"
            raise EngineFailed(message, fatal=True)
        return found[part].to(dtype)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that make up the model, in a fixed order."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        raise EngineFailed(f"{directory} holds neither {single.name} nor {index.name}", fatal=True)
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise EngineFailed(f"{index} cannot be read: {error!r}", fatal=True) from error
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):  # it must not lead out of the directory
            raise EngineFailed(f"{index} names {name!r}, which is no plain name of a safetensors file", fatal=True)
    return [directory / name for name in names]


def identity(directory: Path) -> str:
    """A digest that differs when config or weights differ, without reading gigabytes.

    Of each weights file it covers the size, the header (names, shapes, offsets) and pages spread over the contents, so
    that two fine-tunes of one model, whose headers are equal, are told apart.
    """
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for path in weight_files(directory):
        for piece in _samples(path):
            digest.update(piece)
    return digest.hexdigest()


def _samples(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    yield f"{path.name} {size}".encode()
    with path.open("rb") as file:
        prefix = file.read(8)
        header = int.from_bytes(prefix, "little")
        yield prefix + file.read(min(header, size))
        for place in range(SAMPLES):
            file.seek(size * place // SAMPLES)
            yield file.read(SAMPLE_BYTES)
        file.seek(max(0, size - SAMPLE_BYTES))
        yield file.read(SAMPLE_BYTES)
