"""How well a device is, by its own error counters and by whether it answers at all.

Owns what each kind of device is asked and what its counters mean. Called in a thread of its own, beside the engine's.
CUDA: NVML's counters, where the package pynvml (nvidia-ml-py) is installed. NPU: torch_npu offers no counters, so the
tool npu-smi is asked, where the process can run it. CPU: always well.
"""

import importlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import torch

from shared.engine.npu_smi import Inspector
from shared.messages import Health

WELL: Final = (Health.OK, "")

log = logging.getLogger(__name__)
_npu_smi = Inspector(os.environ)


@dataclass(frozen=True, slots=True)
class Counters:
    """What NVML says of one GPU's memory; None where it does not count that."""

    uncorrected: int | None = None  # ECC errors since the last reset that could not be corrected
    remap_pending: bool | None = None  # rows wait for a reset to be remapped
    remap_failed: bool | None = None  # no spare row was left for a bad one


def judge(counters: Counters) -> tuple[Health, str]:
    """Say what a GPU's counters mean. Pure.

    A row that could not be remapped stays bad: the GPU is to be exchanged. The other two mean that it should be reset:
    what was hit was killed by the driver, and the memory that is used now is good.
    """
    if counters.remap_failed:
        return Health.FAILED, "a bad row of its memory could not be remapped"
    if counters.uncorrected:
        return Health.DEGRADED, f"{counters.uncorrected} uncorrected memory errors since its last reset"
    if counters.remap_pending:
        return Health.DEGRADED, "bad rows of its memory wait for a reset to be remapped"
    return WELL


def probe(name: str) -> tuple[Health, str]:
    """Ask the device of that name. Blocks, for long if the driver hangs."""
    kind = name.partition(":")[0]
    if kind == "cpu":
        return WELL
    device = torch.device(kind, torch.device(name).index or 0)
    try:
        vars(torch)[kind].mem_get_info(device)
    except (RuntimeError, AssertionError) as error:  # after an error of the device every call of its process fails
        return Health.FAILED, f"{device} does not answer: {error}".splitlines()[0][:200]
    return _judged(device)


def probe_beside(name: str) -> tuple[Health, str]:
    """Ask about a device that another process computes on: its counters alone, for to ask itself takes its memory."""
    kind = name.partition(":")[0]
    if kind == "cpu":
        return WELL
    device = torch.device(kind, torch.device(name).index or 0)
    return _judged(device)


def _judged(device: torch.device) -> tuple[Health, str]:
    if device.type == "npu":
        return _npu_smi.look(device.index, time.monotonic())
    return judge(_counters(device)) if device.type == "cuda" else WELL


def devices_of(name: str) -> frozenset[str]:
    """Names of a device: as torch counts it, and a GPU's own, which is the same in every process and container."""
    kind = name.partition(":")[0]
    if kind == "cpu":
        return frozenset({"cpu"})
    device = torch.device(kind, torch.device(name).index or 0)
    uuid = _uuid(device) if kind == "cuda" else ""
    return frozenset(filter(None, (str(device), uuid)))


def _uuid(device: torch.device) -> str:
    """Name a GPU as NVML does; nothing where torch does not know it."""
    with suppress(RuntimeError, AssertionError):  # AssertionError: a torch without CUDA
        found = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        if found is not None:
            return f"GPU-{found}"
    return ""


def _counters(device: torch.device) -> Counters:
    """Ask NVML. It counts devices in its own way, so the GPU is found by its own name."""
    uuid = _uuid(device)
    return counters(lambda nvml: nvml.nvmlDeviceGetHandleByUUID(uuid)) if uuid else Counters()


def counters(find: Callable[[Any], object]) -> Counters:
    """What NVML, where it is there, says of the GPU that `find` gets the handle of, from the package pynvml."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return Counters()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.debug("no NVML", extra={"error": str(error)})
        return Counters()
    try:
        handle = find(nvml)
        return Counters(_uncorrected(nvml, handle), *_remapping(nvml, handle))
    except nvml.NVMLError as error:
        log.debug("NVML does not know the device", extra={"error": str(error)})
        return Counters()
    finally:
        nvml.nvmlShutdown()


def _uncorrected(nvml: Any, handle: object) -> int | None:  # noqa: ANN401  a module that may not be there
    """Count; None where the GPU has no ECC."""
    try:
        kind, since = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        return int(nvml.nvmlDeviceGetTotalEccErrors(handle, kind, since))
    except nvml.NVMLError:
        return None


def _remapping(nvml: Any, handle: object) -> tuple[bool | None, bool | None]:  # noqa: ANN401
    """Say whether remapping is pending and whether one has failed; None where the GPU does not remap."""
    try:
        _, _, pending, failed = nvml.nvmlDeviceGetRemappedRows(handle)
    except nvml.NVMLError:
        return None, None
    return bool(pending), bool(failed)
