"""How well an instance is: the fault file in all its states, the engine's probe, and the worst of both."""

import json
import os
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

import shared.checkup
from shared.checkup import Checkup, FaultWatch
from shared.errors import MalformedMessage
from shared.fault_file import LARGEST, MOST, concerning
from shared.instance import Instance
from shared.messages import Health

OK, DEGRADED, FAILED = Health.OK, Health.DEGRADED, Health.FAILED
GPU = frozenset({"cuda:0", "GPU-1"})


def faults(*found: dict[str, object]) -> bytes:
    return json.dumps({"faults": list(found)}).encode()


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([], (OK, "")),
        ([{"level": "degraded", "text": "fan"}], (DEGRADED, "fan")),
        ([{"device": "*", "level": "failed", "text": "power"}], (FAILED, "power")),
        ([{"device": "cuda:1", "level": "failed"}], (OK, "")),
        ([{"device": "GPU-1", "level": "failed", "text": "XID 79"}], (FAILED, "XID 79")),
        ([{"device": "cuda:0", "level": "ok", "text": "fine"}], (OK, "")),
        ([{"level": "degraded", "text": "a"}, {"device": "cuda:0", "level": "failed", "text": "b"}], (FAILED, "b")),
        ([{"level": "degraded", "text": "a"}, {"level": "degraded", "text": "b"}], (DEGRADED, "a")),
        ([{"device": "cuda:0", "level": "failed"}], (FAILED, "the node reports a fault of cuda:0")),
        ([{"level": "degraded", "text": "x", "since": 7}], (DEGRADED, "x")),
    ],
)
def test_the_worst_fault_that_concerns_the_device_counts(
    found: list[dict[str, object]], verdict: tuple[Health, str]
) -> None:
    assert concerning(faults(*found), GPU) == verdict


def test_who_has_no_device_heeds_what_concerns_all() -> None:
    both = faults({"device": "cuda:0", "level": "failed"}, {"level": "degraded", "text": "fan"})
    assert concerning(both, ()) == (DEGRADED, "fan")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"faults": 1}',
        b'{"faults": [{"level": "bad"}]}',
        b'{"faults": [{"device": "*"}]}',
        b'{"faults": [{"level": "ok", "text": 7}]}',
        b"\xff\xfe",
        b"[" * 50_000,
        faults(*[{"level": "ok"}] * (MOST + 1)),
    ],
)
def test_what_is_no_fault_file_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        concerning(data, GPU)


def test_a_file_that_cannot_be_used_leaves_the_last_word_and_one_that_is_gone_means_ok(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "faults.json"
    watch = FaultWatch(str(path), GPU)
    assert watch.look() == (OK, "")
    path.write_bytes(faults({"level": "degraded", "text": "fan"}))
    assert watch.look() == (DEGRADED, "fan")
    for garbage in (b"nonsense", b" " * (LARGEST + 1)):
        path.write_bytes(garbage)
        assert watch.look() == watch.look() == (DEGRADED, "fan")
    path.unlink()
    os.mkfifo(path)
    assert watch.look() == (DEGRADED, "fan")  # and nobody waits for a writer
    path.unlink()
    path.mkdir()
    assert watch.look() == (DEGRADED, "fan")
    assert len(caplog.records) == 4  # one for each trouble, not for each look
    path.rmdir()
    assert watch.look() == (OK, "")


class Felt:
    """The part of an instance that a checkup sees."""

    def __init__(self, fault_file: str = "") -> None:
        settings = type("Settings", (), {"fault_file": fault_file})
        self.config = type("Config", (), {"instance": settings})
        self.telemetry = type("Telemetry", (), {"registry": CollectorRegistry()})
        self.health, self.ailment = OK, ""

    async def feel(self, health: Health, ailment: str) -> None:
        self.health, self.ailment = health, ailment

    @property
    def gauge(self) -> float | None:
        registry: CollectorRegistry = self.telemetry.registry  # type: ignore[attr-defined]
        return registry.get_sample_value("baton_instance_health")


class Device:
    """An engine's probe that says, or does, what the test wants."""

    devices = GPU

    def __init__(self) -> None:
        self.says: Any = (OK, "")
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0

    def probe(self) -> tuple[Health, str]:
        self.asked += 1
        self.answers.wait(10)
        if isinstance(self.says, Exception):
            raise self.says
        health, why = self.says
        return health, why


def checkup(felt: Felt, device: Device | None = None) -> Checkup:
    return Checkup(cast("Instance", felt), device)


async def test_the_worse_of_probe_and_fault_file_counts(tmp_path: Path) -> None:
    path, device = tmp_path / "faults.json", Device()
    felt = Felt(str(path))
    looking = checkup(felt, device)
    assert await looking.look() == (OK, "")
    path.write_bytes(faults({"device": "cuda:0", "level": "degraded", "text": "warm"}))
    assert await looking.look() == (DEGRADED, "warm")
    device.says = (FAILED, "a bad row")
    assert await looking.look() == (FAILED, "a bad row")
    await felt.feel(*await looking.look())
    assert felt.gauge == 2.0


async def test_a_probe_that_fails_or_hangs_means_degraded_and_no_second_one_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device()
    looking = checkup(Felt(), device)
    device.says = ValueError("no driver")
    assert await looking.look() == (DEGRADED, "its device cannot be probed: ValueError: no driver")
    monkeypatch.setattr(shared.checkup, "PATIENCE_S", 0.01)
    device.says = (OK, "")
    device.answers.clear()
    for _ in range(3):
        assert (await looking.look())[0] is DEGRADED
    assert device.asked == 2
    device.answers.set()
    monkeypatch.setattr(shared.checkup, "PATIENCE_S", 10.0)
    assert await looking.look() == (OK, "")


async def test_where_there_is_nothing_to_look_at_nobody_looks() -> None:
    await checkup(Felt()).run()
