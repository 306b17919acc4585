"""A rank's end of the worker's device arena: it has the device, so it does there what the worker asks.

Owns a unix socket in the notes' private folder and a thread for each of the worker's connections, which does one
command after the other. Must not know transfers: the worker says which bytes, and keeps the book of who has them.
Nothing of it runs on vLLM's own thread.
"""

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.engine.vllm_engine.device_notes import (
    Answer,
    Begin,
    Close,
    Command,
    Fetch,
    Open,
    Sum,
    ToHost,
    hear_command,
    say,
)
from shared.kv.device_arena import DeviceArena, DeviceError, PeerDevice

MAX_CONNECTIONS: Final = 256
END_S: Final = 5.0

Own = Callable[[int, int], Iterable[tuple[int, int]]]
"""Which parts (start, bytes) of the range (offset, bytes) this rank writes into the arena in host memory."""

log = logging.getLogger(__name__)


def whole(offset: int, nbytes: int) -> Iterable[tuple[int, int]]:
    """Of a rank that has all heads of all layers."""
    return [(offset, nbytes)]


class DeviceServer:
    """Listens at `path` from its making on. `host` is the arena in host memory, mapped for writing.

    `make` makes the device arena, of so many bytes, when the worker wants one; until then `device` is None.
    """

    def __init__(self, path: Path, make: Callable[[int], DeviceArena], host: memoryview, own: Own = whole) -> None:
        self.device: DeviceArena | None = None
        self._make = make
        self._making = threading.Lock()
        self._host = host
        self._own = own
        self._peers: dict[int, PeerDevice] = {}
        self._numbers = itertools.count(1)
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(MAX_CONNECTIONS)
        self._begin(self._accept, "kv device")

    def close(self) -> None:
        """End all threads, with the command that each does, and let go of all peers. Idempotent."""
        self._closed = True
        for sock in (self._listener, *self._connections):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(END_S)
        self._listener.close()
        for number in list(self._peers):
            self._peers.pop(number).close()
        if self.device is not None:
            self.device.close()

    def _begin(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # closed
            if len(self._connections) >= MAX_CONNECTIONS or self._closed:
                sock.close()
                continue
            self._connections.add(sock)
            self._begin(lambda sock=sock: self._serve(sock), "kv device call")  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        try:
            while True:
                say(sock, self._do(hear_command(sock)))
        except (OSError, ValueError) as error:
            log.debug("a connection of the worker's ended: %s", error)
        finally:
            self._connections.discard(sock)
            sock.close()

    def _do(self, command: Command) -> Answer:
        try:
            return self._done(command)
        except Exception as error:  # noqa: BLE001  whatever it is, the worker hears of it and vLLM does not
            return Answer(why=str(error) or repr(error))

    def _done(self, command: Command) -> Answer:
        device = self._begun(command)
        match command:
            case Begin():
                return Answer(kind=device.kind, handle=device.handle, size=device.size)
            case Sum(offset, nbytes):
                return Answer(digest=device.checksum(offset, nbytes, _go_on))
            case ToHost(offset, nbytes):
                self._to_host(device, offset, nbytes)
            case Open(handle):
                number = next(self._numbers)
                self._peers[number] = device.open(handle)
                return Answer(peer=number)
            case Fetch(peer, source, offset, nbytes):
                return Answer(digest=self._peers[peer].fetch(source, offset, nbytes, _go_on))
            case Close(peer):
                self._peers.pop(peer).close()
        return Answer()

    def _begun(self, command: Command) -> DeviceArena:
        with self._making:
            if self.device is None and isinstance(command, Begin):
                self.device = self._make(command.nbytes)
            if self.device is None:
                raise DeviceError("no memory was taken on the device")
            return self.device

    def _to_host(self, device: DeviceArena, offset: int, nbytes: int) -> None:
        for start, length in self._own(offset, nbytes):
            with self._host[start : start + length] as part:
                device.to_host(start, part, _go_on)


def _go_on() -> None:
    """A command is short; the worker waits for its end in any case."""
