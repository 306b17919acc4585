"""The channel between the leader and one follower: a pair of sockets without a name, which ends with either process.

A note is its length and its bytes. Whoever holds an end writes and reads it from one thread each; every wait has a
limit, but for a follower's wait for its next command.
"""

import select
import socket
import time
from typing import Final

from shared.engine.torch_engine.ranks.notes import MAX_NOTE_BYTES
from shared.errors import EngineFailed

LENGTH_BYTES: Final = 4
SEND_S: Final = 20.0
"""A peer that has not read for so long is stuck: it is told of one thing at a time."""


class LineEnded(EngineFailed):
    """Raised when the other end is gone."""


class Line:
    """One end. `peer` is what messages call the other."""

    def __init__(self, end: socket.socket, peer: str) -> None:
        end.settimeout(SEND_S)  # one for both threads, so it stays; who reads waits by polling
        self._socket = end
        self._arrival = select.poll()
        self._arrival.register(end, select.POLLIN)
        self.peer = peer

    def fileno(self) -> int:
        """Of the socket, to wait for it; -1 after `close`."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Raises LineEnded, or EngineFailed when the other end does not read."""
        if len(data) > MAX_NOTE_BYTES:
            raise EngineFailed(f"a note of {len(data)} bytes to {self.peer} is longer than any may be", fatal=True)
        try:
            self._socket.sendall(len(data).to_bytes(LENGTH_BYTES, "little") + data)
        except TimeoutError as error:
            raise EngineFailed(f"{self.peer} has not read for {SEND_S:g} s", fatal=True) from error
        except OSError as error:
            raise LineEnded(f"{self.peer} has ended", fatal=True) from error

    def receive(self, seconds: float | None) -> bytes:
        """The next note. Raises LineEnded, or EngineFailed when none has come within so many seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        nbytes = int.from_bytes(self._exactly(LENGTH_BYTES, until), "little")
        if nbytes > MAX_NOTE_BYTES:
            raise EngineFailed(f"{self.peer} announces a note of {nbytes} bytes, and none is so long", fatal=True)
        return bytes(self._exactly(nbytes, until))

    def _exactly(self, nbytes: int, until: float | None) -> bytearray:
        data = bytearray(nbytes)
        got = 0
        with memoryview(data) as view:
            while got < nbytes:
                left_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
                if not self._arrival.poll(left_ms):
                    raise EngineFailed(f"{self.peer} has not answered in time", fatal=True)
                try:
                    more = self._socket.recv_into(view[got:])
                except OSError as error:
                    raise LineEnded(f"{self.peer} has ended", fatal=True) from error
                if not more:
                    raise LineEnded(f"{self.peer} has ended", fatal=True)
                got += more
        return data

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
