"""What Huawei's tool `npu-smi` says of an NPU: whether it is well, and the errors of its memory that it has counted.

Owns the commands, how their output is read, and what it means; imports no torch, so every engine can ask. The forms are
those of the npu-smi reference (hiascend.com, "npu-smi info -m", "-t health", "-t ecc"). Where the tool is missing, or
says nothing that is known (in a container it answers root alone), there is no verdict.
"""

import logging
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.config.devices import VARIABLES
from shared.messages import Health

TOOL: Final = "npu-smi"
ANSWER_S: Final = 2.5
"""For each of the three questions; all of them must fit into the time that a look at the device may take."""
EVERY_S: Final = 30.0
"""Between two times that a device is asked about: each takes the tool, and the driver, a good part of a second."""
WELL: Final = (Health.OK, "")
LEVELS: Final = {"OK": Health.OK, "Warning": Health.DEGRADED, "Alarm": Health.FAILED, "Critical": Health.FAILED}
"""A minor, a major and a critical alarm, as the reference has them; UNKNOWN says that there is no such device."""
_FIELD: Final = re.compile(r"^\s*([^:]+?)\s*:\s*(.*?)\s*$")
_ROW: Final = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+\S")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chip:
    """Where a device sits: the tool counts cards (`-i`) and the chips on each (`-c`)."""

    npu: int
    chip: int


@dataclass(frozen=True, slots=True)
class Errors:
    """What a chip has counted of its memory's errors that could not be corrected."""

    now: int = 0  # since the driver was loaded
    isolating: int = 0  # pages that are taken out of use at the next reset


def chips(text: str) -> dict[int, Chip]:
    """Read `npu-smi info -m`: which chip each logical device is. A card's controller (Mcu) has no logical id."""
    found = filter(None, map(_ROW.match, text.splitlines()))
    return {int(row[3]): Chip(int(row[1]), int(row[2])) for row in found}


def health(text: str) -> tuple[Health, str]:
    """Read `npu-smi info -t health -i <npu> -c <chip>`."""
    fields = _fields(text)
    word = fields.get("Health Status") or fields.get("Health") or ""
    level = LEVELS.get(word, Health.OK)
    if level is Health.OK:
        return WELL
    parts = [fields.get("Error Code", ""), fields.get("Error Information", "")]
    detail = " ".join(part for part in parts if part not in ("", "NA"))
    return level, f"npu-smi says {word}{f': {detail}' if detail else ''}"[:200]


def errors(text: str, chip: int) -> Errors:
    """Read `npu-smi info -t ecc -i <npu>`: a block per chip, ended by its `Chip ID`; or one block of the only chip."""
    now = isolating = 0
    for line in text.splitlines():
        found = _FIELD.match(line)
        if found is None:
            continue
        name, value = found[1], int(found[2]) if found[2].isdecimal() else 0
        if name == "Chip ID":
            if value == chip:
                break
            now = isolating = 0
        elif name in ("HBM Double Bit Error Count", "DDR Double Bit Error Count"):
            now += value
        elif name == "HBM Double Bit Next-Isolated Pages Count":
            isolating += value
    return Errors(now, isolating)


def judge(counted: Errors) -> tuple[Health, str]:
    """Say what a chip's counters mean: what was hit was killed, and the chip should be reset when it can be spared."""
    if counted.now:
        return Health.DEGRADED, f"{counted.now} uncorrected memory errors since its driver was loaded"
    if counted.isolating:
        return Health.DEGRADED, f"{counted.isolating} bad pages of its memory wait for a reset to be isolated"
    return WELL


def logical(index: int, environ: Mapping[str, str]) -> int | None:
    """Which device of the machine is a process's `npu:<index>`; None where its environment hides that one."""
    visible = environ.get(VARIABLES["npu"], "")
    if not visible.strip():
        return index
    numbers = [part.strip() for part in visible.split(",")]
    return int(numbers[index]) if index < len(numbers) and numbers[index].isdecimal() else None


class Inspector:
    """Asks about one process's devices, and remembers each answer for a while. For one thread at a time."""

    def __init__(self, environ: Mapping[str, str], *, every_s: float = EVERY_S) -> None:
        self._environ = environ
        self._every_s = every_s
        self._known: dict[int, tuple[float, tuple[Health, str]]] = {}

    def look(self, index: int, now: float) -> tuple[Health, str]:
        """Say how `npu:<index>` is, as it was asked no longer ago than `every_s`. `now` in seconds; may block."""
        known = self._known.get(index)
        if known is None or now - known[0] >= self._every_s:
            known = self._known[index] = (now, probe(index, self._environ))
        return known[1]


def probe(index: int, environ: Mapping[str, str]) -> tuple[Health, str]:
    """Ask the tool about a process's `npu:<index>`. Blocks, for three answers at most; no verdict where none come."""
    device = logical(index, environ)
    if device is None or shutil.which(TOOL, path=environ.get("PATH")) is None:
        return WELL
    chip = chips(_ask(environ, "-m")).get(device)
    if chip is None:
        return WELL
    found = health(_ask(environ, "-t", "health", "-i", str(chip.npu), "-c", str(chip.chip)))
    if found[0] is not Health.OK:
        return found
    return judge(errors(_ask(environ, "-t", "ecc", "-i", str(chip.npu)), chip.chip))


def _fields(text: str) -> dict[str, str]:
    return {found[1]: found[2] for found in map(_FIELD.match, text.splitlines()) if found is not None}


def _ask(environ: Mapping[str, str], *arguments: str) -> str:
    """Run the tool; nothing where it fails or does not end in time."""
    try:
        done = subprocess.run(  # noqa: S603  its arguments are made here
            [shutil.which(TOOL, path=environ.get("PATH")) or TOOL, "info", *arguments],
            capture_output=True,
            check=False,
            env=dict(environ),
            text=True,
            errors="replace",
            timeout=ANSWER_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("npu-smi does not answer", extra={"error": str(error)})
        return ""
    return done.stdout if done.returncode == 0 else ""
