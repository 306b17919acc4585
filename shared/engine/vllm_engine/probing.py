"""How well the devices of vLLM's ranks are, asked from the worker's process, which has none of them open.

A device that does not answer at all needs no probe: its rank dies or stands still, and EngineCore with it. GPUs are
found by CUDA_VISIBLE_DEVICES, numbers being NVML's, which are CUDA's where CUDA_DEVICE_ORDER is PCI_BUS_ID or all GPUs
are of one kind.
"""

import time
from collections.abc import Mapping
from typing import Any

from shared.engine.npu_smi import Inspector
from shared.engine.torch_engine.health import WELL, counters, judge
from shared.fault_file import SEVERITY
from shared.messages import Health


class Devices:
    """Those of one worker: `number` of the kind that vLLM calls cpu, cuda or npu. For one thread at a time."""

    def __init__(self, kind: str, number: int, environ: Mapping[str, str]) -> None:
        self._kind = kind
        self._number = number
        self._inspector = Inspector(environ)
        self._visible = [one.strip() for one in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]

    @property
    def names(self) -> frozenset[str]:
        """As a node's fault file may call them."""
        if self._kind == "cpu":
            return frozenset({"cpu"})
        uuids = self._visible[: self._number] if self._kind == "cuda" else []
        counted = (f"{self._kind}:{index}" for index in range(self._number))
        return frozenset((*counted, *(one for one in uuids if one.startswith("GPU-"))))

    def probe(self) -> tuple[Health, str]:
        """Say how the worst of them is, and why not better. Blocks."""
        found = [WELL, *(self._look(index) for index in range(self._number))]
        return max(found, key=lambda one: SEVERITY.index(one[0]))

    def _look(self, index: int) -> tuple[Health, str]:
        match self._kind:
            case "npu":
                return self._inspector.look(index, time.monotonic())
            case "cuda":
                return judge(counters(lambda nvml: self._handle(nvml, index)))
            case _:
                return WELL

    def _handle(self, nvml: Any, index: int) -> object:  # noqa: ANN401  a module that may not be there
        name = self._visible[index] if index < len(self._visible) else str(index)
        if name.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(name))
        return nvml.nvmlDeviceGetHandleByUUID(name)
