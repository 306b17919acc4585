"""The KV hand-off: one contiguous buffer per request, pushed once from prefill's staging to decode's.

`layout` says what the bytes mean, `arena` owns the staging memory, `receiver` grants tickets (`tickets`) and takes
buffers in (`intake`), `sender` pushes them over connections that it keeps (`pool`); `tcp`, `shm` and `cuda_ipc` are
the ways across, `link` is a socket on any, `wire` the records on it. A buffer of `growth` leaves while its prompt is
still computed. Where an engine has staging on its device (`device_arena`), a range's bytes may lie there instead, and
go from device to device. KV bytes never go over NATS.
"""

from typing import TYPE_CHECKING, Protocol

from shared.messages import Endpoint, KvGrant

if TYPE_CHECKING:
    from shared.kv.growth import Growing


class Staging(Protocol):
    """One reserved range of an arena. `release` gives it back, once; a second call does nothing."""

    @property
    def view(self) -> memoryview:
        """Exactly the reserved bytes, writable."""
        ...

    def release(self) -> None:
        """Nobody reads or writes the range any more."""
        ...


class Expected(Protocol):
    """A push that was granted and has not come yet."""

    @property
    def ticket(self) -> bytes:
        """Sixteen random bytes, valid for one push before the deadline."""
        ...

    @property
    def begun(self) -> bool:
        """Whether the ticket was used. A push that is then cancelled may have been reported to its sender as done."""
        ...

    async def received(self) -> Staging:
        """The buffer, complete and verified; the caller releases it. Raises KvRefused or DeadlineExceeded."""
        ...

    def cancel(self) -> None:
        """Nobody waits any more: the ticket is void and the staging is released. Idempotent."""
        ...


class KvReceiver(Protocol):
    """Decode's end. Owns the listening sockets and its arena."""

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where senders may push, best first."""
        ...

    @property
    def expected(self) -> int:
        """Pushes granted, moving, or arrived and not taken yet."""
        ...

    @property
    def links(self) -> int:
        """Connections from senders, moving and kept."""
        ...

    def expect(self, key: str, nbytes: int, deadline_ms: int) -> Expected:
        """Reserve staging for one push. `key` is `wire.push_key(request_id, attempt)`: the sender's opening repeats it.

        Raises Overloaded when the arena or the number of transfers is at its bound.
        """
        ...


class KvSender(Protocol):
    """Prefill's end."""

    @property
    def links(self) -> int:
        """Connections to receivers, moving and kept."""
        ...

    @property
    def may_grow(self) -> bool:
        """Whether one more buffer may be pushed while it grows: each keeps a thread for as long."""
        ...

    async def push(self, staging: Staging, grant: KvGrant) -> str:
        """Push the range to the first endpoint that can be reached; the transport used.

        Waits for the receiver's word that length and checksum agree. Raises KvRefused (the receiver said no),
        WorkerLost (it went away) or DeadlineExceeded; the range is the caller's again in every case.
        """
        ...

    async def push_growing(self, growing: "Growing", grant: KvGrant) -> str:
        """Push a buffer as it becomes final, then its tail; otherwise as `push`. The caller stops the growth at last.

        A growth that is stopped raises WorkerLost, and the receiver has certainly not got it.
        """
        ...
