"""The node's fault file: what a watcher that lives on the node says of its devices (P/D-Serve, section on faults).

Owns its format, its bounds, and which of its faults concern an instance. Parsing is pure; `read` is the only look at
the file. The format is documented in docs/operations.md.
"""

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final

import msgspec

from shared.errors import MalformedMessage
from shared.messages import Health

LARGEST: Final = 256 << 10
"""Bytes of the file."""
MOST: Final = 1024
"""Faults in it."""
EVERY: Final = "*"
"""The device of a fault that concerns everyone on the node."""
LONGEST_TEXT: Final = 200
SEVERITY: Final = (Health.OK, Health.DEGRADED, Health.FAILED)
"""From good to bad."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong on the node."""

    level: Health
    device: str = EVERY
    text: str = ""


class FaultFile(msgspec.Struct, frozen=True):
    """The whole file."""

    faults: Annotated[list[Fault], msgspec.Meta(max_length=MOST)]


def worst(findings: Collection[tuple[Health, str]]) -> tuple[Health, str]:
    """Choose the worst of several findings, the first of equals; without any, all is well."""
    return max(findings, key=lambda finding: SEVERITY.index(finding[0]), default=(Health.OK, ""))


def concerning(data: bytes, devices: Collection[str]) -> tuple[Health, str]:
    """Say the worst of the faults that concern one of the devices. Raises MalformedMessage."""
    try:
        file = msgspec.json.decode(data, type=FaultFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # a ValidationError is the former
        raise MalformedMessage("fault file", len(data), str(error)) from error
    return worst(
        [
            (fault.level, (fault.text or f"the node reports a fault of {fault.device}")[:LONGEST_TEXT])
            for fault in file.faults
            if (fault.device == EVERY or fault.device in devices) and fault.level is not Health.OK
        ]
    )


def read(path: Path) -> bytes | None:
    """Read the file, no more than its bound; None where there is none. Raises OSError or MalformedMessage.

    Never waits, even if somebody has put a pipe there.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(number, "rb") as file:  # noqa: PTH123  an open descriptor
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise MalformedMessage("fault file", 0, "it is no regular file")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise MalformedMessage("fault file", len(data), f"more than {LARGEST} bytes")
    return data
