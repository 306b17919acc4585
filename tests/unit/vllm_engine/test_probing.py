"""Which devices a worker's ranks have, and how the worst of them is."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from shared.engine.vllm_engine.probing import Devices
from shared.messages import Health


class Nvml(SimpleNamespace):
    """pynvml of a machine with four GPUs, one of which has errors."""

    class NVMLError(Exception):
        """The package's own."""

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0

    def __init__(self, sick: object) -> None:
        super().__init__(sick=sick, asked=[])

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        self.asked.append(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:  # noqa: N802
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEccErrors(self, handle: object, *_: int) -> int:  # noqa: N802
        return 3 if handle == self.sick else 0

    def nvmlDeviceGetRemappedRows(self, handle: object) -> tuple[int, int, bool, bool]:  # noqa: N802
        return 0, 0, False, False


def put(monkeypatch: pytest.MonkeyPatch, sick: object) -> Any:
    nvml = Nvml(sick)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def test_a_processor_is_always_well() -> None:
    devices = Devices("cpu", 2, {})
    assert devices.names == {"cpu"}
    assert devices.probe() == (Health.OK, "")


@pytest.mark.parametrize(("visible", "sick"), [("", 1), ("2,3", 3), ("GPU-a,GPU-b", "GPU-b")])
def test_one_sick_gpu_of_its_own_makes_a_worker_sick(
    monkeypatch: pytest.MonkeyPatch, visible: str, sick: object
) -> None:
    put(monkeypatch, sick)
    devices = Devices("cuda", 2, {"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    health, why = devices.probe()
    assert health is Health.DEGRADED
    assert "3 uncorrected" in why


def test_what_is_not_its_own_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = put(monkeypatch, 0)
    devices = Devices("cuda", 2, {"CUDA_VISIBLE_DEVICES": "2,3,0"})
    assert devices.probe() == (Health.OK, "")
    assert nvml.asked == [2, 3]


def test_a_fault_file_may_name_a_gpu_as_the_process_counts_or_by_its_own_name() -> None:
    devices = Devices("cuda", 1, {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"})
    assert devices.names == {"cuda:0", "GPU-a"}
    assert Devices("npu", 2, {}).names == {"npu:0", "npu:1"}
