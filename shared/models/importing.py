"""Imports a known model from its package into the cache, as a Hugging Face directory.

`python -m shared.models.importing NAME`. Owns the order and the atomicity: everything is written to a directory beside
the final one and renamed at the end, under a file lock, so that any number of processes may ask at once and none ever
sees half a model.
"""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from tqdm import tqdm

from shared.models.gguf import Gguf
from shared.models.known import FORMAT, KNOWN, MARKER, Known, imported, models_directory
from shared.models.transcript import DEFAULT_STOP, SAMPLING, TEMPLATE


class ImportFailed(Exception):
    """Raised when a model cannot be imported; the text says what to do."""


def import_model(name: str) -> Path:
    """The directory of a known model. Imports it unless a process did so before or is doing so now."""
    if name not in KNOWN:
        raise ImportFailed(f"{name} is no model that Baton knows; it knows {', '.join(sorted(KNOWN))}")
    models = models_directory()
    models.mkdir(parents=True, exist_ok=True)
    with _lock(models / f".{name}.lock"):
        directory = imported(name)
        if directory is not None:
            return directory
        return _import(KNOWN[name], models)


def _import(known: Known, models: Path) -> Path:
    for left_over in models.glob(f".{known.name}.part-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over)
    free = shutil.disk_usage(models).free
    if free < known.bytes_needed:
        raise ImportFailed(
            f"importing {known.name} needs {known.bytes_needed / 1e9:.1f} GB in {models}, where {free / 1e9:.1f} GB "
            "are free; make room, or set BATON_CACHE_DIR to another directory"
        )
    part = models / f".{known.name}.part-{os.getpid()}"
    part.mkdir()
    try:
        _write(known, part)
        _sync(part)
        final = models / known.name
        if final.exists():  # of an older format
            shutil.rmtree(final)
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return final


def _write(known: Known, part: Path) -> None:
    _say(f"importing the model {known.name} (once)")
    source = _assemble(known, part / "model.gguf")
    _say("reading the model file")
    gguf = Gguf(source)
    config = gguf.config()
    _say("converting the tokenizer")
    gguf.tokenizer().save(str(part / "tokenizer.json"), pretty=False)
    weights = dict(
        tqdm(gguf.weights(), "converting the weights", gguf.tensors, unit="tensor", disable=None, leave=False)
    )
    _say("writing the weights")
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    (part / "model.safetensors").chmod(0o644)
    source.unlink()

    names = {"bos_token_id": config["bos_token_id"], "eos_token_id": [config["eos_token_id"]]}
    _write_json(part / "config.json", config)
    _write_json(part / "generation_config.json", names)
    _write_json(
        part / "tokenizer_config.json",
        gguf.special_tokens()
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
        },
    )
    (part / "chat_template.jinja").write_text(TEMPLATE)
    # not in generation_config.json, where they would make a plain `generate` of transformers draw lots
    marker = {"format": FORMAT, "source_sha256": known.sha256, "default_stop": DEFAULT_STOP, "sampling": SAMPLING}
    _write_json(part / MARKER, marker)


def _assemble(known: Known, target: Path) -> Path:
    """The GGUF file, put together from the package's pieces and checked against the digest that we know."""
    try:
        package = import_module(known.package)
        package.assemble(target)
    except (ImportError, OSError, ValueError) as error:
        raise ImportFailed(
            f"the package {known.distribution} is not usable ({error}); "
            f"pip install --force-reinstall {known.distribution}"
        ) from error
    with target.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    if found != known.sha256:
        raise ImportFailed(f"the model file of {known.distribution} has the digest {found}, expected {known.sha256}")
    return target


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel frees it when the holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that imports the same model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync(directory: Path) -> None:
    """Bytes first, then the name: after a power cut the final directory is whole or absent."""
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(f"baton: {line}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Import the models named; print each one's directory."""
    if not arguments:
        sys.stderr.write(f"usage: python -m shared.models.importing NAME, one of {', '.join(sorted(KNOWN))}\n")
        return 2
    try:
        for name in arguments:
            sys.stdout.write(f"{import_model(name)}\n")
    except ImportFailed as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
