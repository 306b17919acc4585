"""A connector's end of the notes: a DEALER to the worker's socket. It never waits in a step.

Owned by one thread of vLLM's.
"""

import logging
from typing import Any, Final
from weakref import WeakSet

import msgspec
import zmq

from shared.engine.vllm_engine.notes import FromVllm, Plan, pack, parse_plan
from shared.errors import EngineFailed

BACKLOG: Final = 65_536
"""Notes for a worker that does not read: it is dead or stuck, and this process will be ended."""
LINGER_MS: Final = 1000

log = logging.getLogger(__name__)
_lines: "WeakSet[DealerLine]" = WeakSet()
"""Of this process: its connector's one."""


def tell(note: FromVllm) -> None:
    """Send a note from elsewhere in the connector's process, on its thread."""
    for line in _lines:
        line.send(note)


class DealerLine:
    """A Line."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket: Any = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, BACKLOG)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.connect(address)
        _lines.add(self)

    def send(self, note: FromVllm) -> None:
        """Hand it over, or lose it where the worker has not read for long."""
        try:
            self._socket.send(pack(note), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.error("a note to the worker was lost: %s (%s)", note, error)  # noqa: TRY400

    def plan(self, seconds: float) -> Plan:
        """Wait for the answer to a registration. Raises EngineFailed."""
        if not self._socket.poll(round(seconds * 1000)):
            raise EngineFailed(f"the worker did not answer this rank's registration within {seconds:.0f} s", fatal=True)
        try:
            return parse_plan(self._socket.recv())
        except msgspec.MsgspecError as error:
            raise EngineFailed(f"the worker's answer to a registration cannot be read: {error}", fatal=True) from error

    def close(self) -> None:
        """Give what is queued a moment to leave. Idempotent."""
        _lines.discard(self)
        self._socket.close()
        self._context.term()
