"""What `npu-smi` prints is read as its reference has it, and a tool that fails, hangs or is missing says nothing.

Outputs are those of the npu-smi reference and of Huawei's fault diagnosis guide ("npu-smi info -t ecc").
"""

from pathlib import Path

import pytest

from shared.engine import npu_smi
from shared.engine.npu_smi import Chip, Errors, Inspector, chips, errors, health, judge, logical, probe
from shared.messages import Health

MAP = """\
\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Name
\t0                              0                              0                              Ascend 910B3
\t0                              1                              -                              Mcu
\t4                              0                              1                              Ascend 910B3
\t4                              1                              -                              Mcu
"""
A3 = """\
\tNPU ID   Chip ID   Chip Logic ID   Chip Name
\t0        0         0               Ascend910
\t0        1         1               Ascend910
\t0        2         -               Mcu
"""
FINE = """\
\tHealth Status                  : OK
\tError Code                     : NA
\tError Information              : NA
"""
ALARM = """\
\tHealth Status                  : Alarm
\tError Code                     : 80C98001
\tError Information              : node type=AIC, sensor type=RAS State, event state=module error can not be fixed
"""
ECC = """\
\tNPU ID                                   : 4
\tChip Count                               : 2

\tDDR Single Bit Error Count               : 7
\tDDR Double Bit Error Count               : 0
\tHBM Single Bit Error Count               : 9
\tHBM Double Bit Error Count               : {first}
\tHBM Double Bit Aggregate Total Err Cnt   : 5
\tHBM Double Bit Isolated Pages Count      : 4
\tHBM Double Bit Next-Isolated Pages Count : {pages}
\tChip ID                                  : 0

\tDDR Double Bit Error Count               : 0
\tHBM Double Bit Error Count               : {second}
\tChip ID                                  : 1
"""


def test_the_map_says_on_which_card_and_chip_a_device_is() -> None:
    assert chips(MAP) == {0: Chip(0, 0), 1: Chip(4, 0)}
    assert chips(A3) == {0: Chip(0, 0), 1: Chip(0, 1)}
    assert chips("dcmi module initialize failed. ret is -8005\n") == {}


@pytest.mark.parametrize(
    ("word", "level"),
    [
        ("OK", Health.OK),
        ("Warning", Health.DEGRADED),
        ("Alarm", Health.FAILED),
        ("Critical", Health.FAILED),
        ("UNKNOWN", Health.OK),
    ],
)
def test_each_level_of_alarm_has_a_meaning(word: str, level: Health) -> None:
    found, why = health(ALARM.replace("Alarm", word))
    assert found is level
    assert ("80C98001" in why and word in why) == (level is not Health.OK)


def test_a_chip_that_is_well_has_nothing_to_say() -> None:
    assert health(FINE) == (Health.OK, "")
    assert health("") == (Health.OK, "")
    assert health("\tHealth                         : Warning\n") == (Health.DEGRADED, "npu-smi says Warning")


def test_each_chip_is_given_its_own_counters() -> None:
    text = ECC.format(first=2, pages=1, second=3)
    assert errors(text, 0) == Errors(now=2, isolating=1)
    assert errors(text, 1) == Errors(now=3)
    without_chips = "\tNPU ID : 0\n\tHBM Double Bit Error Count : 1\n\tHBM Double Bit Next-Isolated Pages Count : 2\n"
    assert errors(without_chips, 0) == Errors(1, 2)
    assert errors("HBM Double Bit Error Count : NA\n", 0) == Errors()


@pytest.mark.parametrize(
    ("counted", "level"),
    [(Errors(), Health.OK), (Errors(now=1), Health.DEGRADED), (Errors(isolating=1), Health.DEGRADED)],
)
def test_counters_have_a_meaning(counted: Errors, level: Health) -> None:
    found, why = judge(counted)
    assert (found, bool(why)) == (level, level is not Health.OK)


@pytest.mark.parametrize(
    ("visible", "index", "device"),
    [(None, 3, 3), ("", 3, 3), ("4,5,6", 1, 5), (" 4 , 5", 0, 4), ("4,5", 2, None), ("x", 0, None)],
)
def test_devices_are_counted_as_the_process_sees_them(visible: str | None, index: int, device: int | None) -> None:
    assert logical(index, {} if visible is None else {"ASCEND_RT_VISIBLE_DEVICES": visible}) == device


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """A machine with the tool, which prints what lies in the files of its folder and counts how often it is called."""
    tool = tmp_path / "npu-smi"
    tool.write_text(
        "#!/bin/sh\n"
        f'cd {tmp_path} && echo "$*" >> asked\n'
        'case "$*" in\n'
        '"info -m") cat map;;\n'
        '"info -t health -i 4 -c 0") cat health;;\n'
        '"info -t ecc -i 4") cat ecc;;\n'
        "*) exit 3;;\n"
        "esac\n"
    )
    tool.chmod(0o755)
    for name, text in {"map": MAP, "health": FINE, "ecc": ECC.format(first=0, pages=0, second=0)}.items():
        (tmp_path / name).write_text(text)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "ASCEND_RT_VISIBLE_DEVICES": "1"}


def test_the_tool_is_asked_about_the_chip_of_the_device(node: dict[str, str], tmp_path: Path) -> None:
    assert probe(0, node) == (Health.OK, "")
    (tmp_path / "ecc").write_text(ECC.format(first=2, pages=0, second=0))
    assert probe(0, node) == (Health.DEGRADED, "2 uncorrected memory errors since its driver was loaded")
    (tmp_path / "health").write_text(ALARM)
    assert probe(0, node)[0] is Health.FAILED
    assert probe(1, node) == (Health.OK, ""), "the process has no such device"


def test_a_device_is_not_asked_about_all_the_time(node: dict[str, str], tmp_path: Path) -> None:
    inspector = Inspector(node, every_s=30.0)
    assert inspector.look(0, now=100.0)[0] is Health.OK
    (tmp_path / "health").write_text(ALARM)
    assert inspector.look(0, now=129.0)[0] is Health.OK
    assert inspector.look(0, now=130.0)[0] is Health.FAILED
    assert (tmp_path / "asked").read_text().count("info -m") == 2


@pytest.mark.parametrize("body", ["exit 1", "sleep 60", "echo nothing of use", "printf '\\377\\376'"])
def test_a_tool_that_is_of_no_use_says_nothing(tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npu_smi, "ANSWER_S", 0.3)
    (tmp_path / "npu-smi").write_text(f"#!/bin/sh\nexec {body}\n" if "sleep" in body else f"#!/bin/sh\n{body}\n")
    (tmp_path / "npu-smi").chmod(0o755)
    assert probe(0, {"PATH": f"{tmp_path}:/usr/bin:/bin"}) == (Health.OK, "")


def test_a_machine_without_the_tool_has_no_verdict(tmp_path: Path) -> None:
    assert probe(0, {"PATH": str(tmp_path)}) == (Health.OK, "")
