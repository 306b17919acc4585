"""What the monitor of a local cluster asks of `baton up`: over a unix socket, a JSON line there and one back.

Owns the types and the limit, used by services/local/supply.py and services/monitor/provisioners/local.py. The socket
lies in the state directory, which only its owner may enter.
"""

from typing import Final

import msgspec

SOCKET: Final = "supply.sock"
"""Its name in the state directory."""
OPTION: Final = "directory"
"""The provisioner's option that names the state directory."""
MOST_BYTES: Final = 1 << 20
"""Of a line: the ids of ten thousand instances, and more."""


class Want(msgspec.Struct, frozen=True, tag="want", tag_field="ask"):
    """Have so many more standbys started than are seen, unless they are on their way already."""

    missing: int
    seen: list[str]
    most: int  # workers and standbys of this cluster that may run
    arrive_s: float  # for one that was started, to be seen


class Release(msgspec.Struct, frozen=True, tag="release", tag_field="ask"):
    """End an instance, if it has not ended by itself; nothing starts in its place."""

    instance: str


class Supplied(msgspec.Struct, frozen=True):
    """What was done."""

    started: list[str] = []
    full: int = 0  # that could not be started because of `most`, or of what `short` says
    error: str = ""  # why nothing was done
    short: str = ""  # what the machine has no more of; empty where `most` is the reason


Asked = Want | Release


def line(message: Want | Release | Supplied) -> bytes:
    """Write one line."""
    return msgspec.json.encode(message) + b"\n"
