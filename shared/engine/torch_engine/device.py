"""The one file that knows devices by name: what differs between cpu, cuda and npu, and nothing else.

Owns the choice of dtype, the way host memory goes to the device and back, and which of torch's linear kernels fit.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch

from shared.engine.torch_engine.cpu.cores import hold
from shared.engine.torch_engine.cpu.int8 import multiplies_exactly
from shared.errors import ConfigError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetch:
    """A copy on its way to the host."""

    _target: torch.Tensor
    _copied: Any  # an event of the device; None: it is there

    def read(self) -> list[Any]:
        """Wait for it. The only wait of a step."""
        if self._copied is not None:
            self._copied.synchronize()
        result: list[Any] = self._target.tolist()
        return result


@dataclass(frozen=True, slots=True)
class Device:
    """Where the engine computes."""

    where: torch.device
    default_dtype: torch.dtype
    packs: bool  # linear layers run faster, and the same for every batch size, over weights packed by oneDNN
    steady: bool  # in float32 a row is computed the same, bit for bit, in whatever company and by whatever way
    fused_int8_rows: int  # up to so many rows the int8 kernel beats dequantising first
    exact_int8: bool  # rows and weights in eight bits are multiplied as integers, exactly
    gather_bytes: int  # keys (or values) gathered at once: what the processor's cache holds, where that matters
    sampling_rows: int  # rows of logits worked on at once: keeps temporaries small enough for the heap to reuse
    lane_bytes: int = 0  # for copies of what decoding sequences see of the cache, where they cost less than gathering
    overlaps: bool = False  # it computes by itself: a step is launched before the tokens of the one before are read

    def upload(self, host: torch.Tensor) -> torch.Tensor:
        """Copy a small host tensor to the device, in stream order."""
        if self.where.type == "cpu":
            return host
        staging = pinned(host.shape, host.dtype)
        staging.copy_(host)
        return staging.to(self.where, non_blocking=True)

    def fetch(self, source: torch.Tensor) -> Fetch:
        """Begin to copy a small tensor to the host, in stream order."""
        if self.where.type == "cpu":
            return Fetch(source, None)
        target = pinned(source.shape, source.dtype)
        target.copy_(source, non_blocking=True)
        copied = vars(torch)[self.where.type].Event()
        copied.record()
        return Fetch(target, copied)

    def gather(self, source: torch.Tensor, index: torch.Tensor, target: torch.Tensor) -> None:
        """Copy source[index] to the target in host memory. Complete when it returns."""
        if self.where.type == "cpu":
            torch.index_select(source, 0, index, out=target)
            return
        staging = pinned(target.shape, target.dtype)
        staging.copy_(source.index_select(0, index), non_blocking=True)
        self.synchronize()
        target.copy_(staging)

    def scatter(self, target: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> None:
        """Set target[index] to the source in host memory, which is free when it returns."""
        if self.where.type != "cpu":
            staging = pinned(source.shape, source.dtype)
            staging.copy_(source)
            source = staging.to(self.where, non_blocking=True)
            self.synchronize()
        target.index_copy_(0, index, source)

    def synchronize(self) -> None:
        """Wait until the device has done what it was told."""
        if self.where.type != "cpu":
            getattr(torch, self.where.type).synchronize(self.where)

    def mark(self) -> Callable[[], bool] | None:
        """What tells, in any thread, whether the device has done what it was told until now; None if it has."""
        if self.where.type == "cpu":
            return None
        reached = vars(torch)[self.where.type].Event()
        reached.record()
        query: Callable[[], bool] = reached.query
        return query

    def clear(self) -> None:
        """Hand freed memory back to the device."""
        if self.where.type != "cpu":
            getattr(torch, self.where.type).empty_cache()


def pinned(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Make host memory that a device reads and writes by itself, while the processor goes on."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def resolve(name: str, threads: int = 0, cpus: str = "") -> Device:
    """The device of that name, ready for use by the calling thread. Raises ConfigError when there is none.

    `cpus` are cores for the thread and for those of torch's that it will start; `threads` 0 is one for each of them.
    """
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda", "npu"):
        raise ConfigError([f"engine_options.device: {name!r} is none of cpu, cuda, npu (cuda:1 is the second one)"])
    held = hold(cpus)
    if threads or held:
        torch.set_num_threads(threads or held)
    if kind == "cpu":
        return _cpu()
    if kind == "npu":
        _import_npu()
    module: Any = vars(torch)[kind]  # torch.npu is there once torch_npu is imported
    try:
        if not module.is_available():
            raise ConfigError([f"engine_options.device: this machine offers torch no {kind} device"])
        device = torch.device(kind, torch.device(name).index or 0)
        module.set_device(device)
    except RuntimeError as error:
        raise ConfigError([f"engine_options.device: {name!r} cannot be used: {error}"]) from error
    return Device(
        device,
        torch.bfloat16,
        packs=False,
        steady=False,
        fused_int8_rows=0,
        exact_int8=False,
        gather_bytes=256 * MEBIBYTE,
        sampling_rows=64,
        overlaps=kind == "cuda",
    )


def _cpu() -> Device:
    packs = hasattr(torch.ops.mkldnn, "_linear_pointwise")  # torch may be built without oneDNN
    return Device(
        torch.device("cpu"),
        torch.float32,
        packs=packs,
        steady=True,
        fused_int8_rows=16,
        exact_int8=multiplies_exactly(),
        gather_bytes=4 * MEBIBYTE,
        sampling_rows=16,
        lane_bytes=1024 * MEBIBYTE,
    )


def _import_npu() -> None:
    try:
        importlib.import_module("torch_npu")
    except ImportError as error:
        raise ConfigError(
            ["engine_options.device: npu needs the package torch_npu (docs/ascend.md says how)"]
        ) from error
