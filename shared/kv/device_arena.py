"""The second half of a staging arena: a device's own memory, so that a KV buffer need not stop in the host's.

What an engine offers to the hand-off where it can. The range at offset x of the arena in host memory owns the bytes at
offset x here too, as far as `size` goes: the arena's book of ranges is the only one. Which of its ranges have their
bytes here, and not there, is marked in `Arena.on_device`; a released range loses its mark. All methods block, and are
called in threads. Imports no torch: whoever has the device brings that.
"""

from collections.abc import Callable
from typing import Final, Protocol

MAX_KIND_BYTES: Final = 8
MAX_HANDLE_BYTES: Final = 1024


class DeviceError(OSError):
    """Raised when a device does not do what it was told."""


class PeerDevice(Protocol):
    """Another process's device arena, open for reading."""

    def fetch(self, source: int, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        """Copy the bytes at the peer's `source` to our own `offset`; the checksum of our copy.

        Touches neither memory any more when it returns or raises. Raises DeviceError, or what `still_wanted` raises.
        """
        ...

    def close(self) -> None:
        """Let go of the peer's memory."""
        ...


class DeviceArena(Protocol):
    """A device's memory, in ranges as the arena in host memory gives them out."""

    @property
    def kind(self) -> str:
        """What can open `handle`: equal at both ends of a push. ASCII, at most MAX_KIND_BYTES."""
        ...

    @property
    def size(self) -> int:
        """In bytes. A range that reaches beyond has its bytes in host memory only."""
        ...

    @property
    def handle(self) -> bytes:
        """By which another process of this host opens the whole memory. At most MAX_HANDLE_BYTES."""
        ...

    def open(self, handle: bytes) -> PeerDevice:
        """Open a peer's memory. Raises DeviceError where the two devices cannot reach each other."""
        ...

    def checksum(self, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        """CHECKSUM_BYTES over the bytes, as `PeerDevice.fetch` computes them. Raises as that does."""
        ...

    def to_host(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> None:
        """Copy the bytes at `offset` to host memory. Raises as `checksum` does."""
        ...

    def close(self) -> None:
        """Give the memory back, once nothing moves any more. Idempotent."""
        ...


def has_room(device: DeviceArena | None, offset: int, nbytes: int) -> bool:
    """Whether a range has a place on the device."""
    return device is not None and offset + nbytes <= device.size
