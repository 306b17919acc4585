"""A DeviceArena for a worker whose devices are in its engine's ranks: each call is a command to every rank.

Owns the connections to the ranks. Each rank has a device arena as long as the worker's; of a range it holds what is its
own of the heads, at the same places as the arena in host memory would, and leaves the rest as it is. So two engines of
equal parallelism hand over rank by rank, each rank its range as a whole, and what it leaves open is copied and summed
up along: the ranks do it side by side. Engines that are split differently have different kinds, and go by host memory.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

import msgspec
import xxhash

from shared.engine.vllm_engine.device_notes import (
    Answer,
    Begin,
    Close,
    Command,
    Fetch,
    Open,
    Sum,
    ToHost,
    hear_answer,
    say,
)
from shared.kv.device_arena import DeviceError

T = TypeVar("T")

CALL_S: Final = 90.0
"""Longer than a rank waits for its device."""


class RankDevices:
    """A DeviceArena of so many bytes in each rank, over their DeviceServers in the order of the ranks.

    Made in a thread, since it blocks. Raises DeviceError where a rank has no memory left, or the ranks do not fit
    together. `offset` and `view` of `to_host` must be the same range of the arena.
    """

    def __init__(self, paths: Sequence[Path], nbytes: int) -> None:
        self._ranks = [_Rank(path) for path in paths]
        try:
            found = self._ask([Begin(nbytes)] * len(paths))
            _check_kinds(found)
        except DeviceError:
            self.close()
            raise
        self.kind = found[0].kind if len(found) == 1 else f"{found[0].kind}*{len(found)}"
        self.size = min(one.size for one in found)
        self.handle = found[0].handle if len(found) == 1 else msgspec.msgpack.encode([one.handle for one in found])

    def open(self, handle: bytes) -> "_Peers":
        """See DeviceArena."""
        handles = [handle] if len(self._ranks) == 1 else _handles(handle)
        if len(handles) != len(self._ranks):
            raise DeviceError(f"a peer of {len(handles)} ranks cannot be read by {len(self._ranks)}")
        answers = self._hear([Open(one) for one in handles])
        opened = [None if one.why else one.peer for one in answers]
        if None in opened:
            self._hear([None if peer is None else Close(peer) for peer in opened])
            raise DeviceError(next(one.why for one in answers if one.why))
        return _Peers(self, [peer for peer in opened if peer is not None])

    def checksum(self, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        """See DeviceArena."""
        still_wanted()
        return self.digest([Sum(offset, nbytes)] * len(self._ranks))

    def to_host(self, offset: int, view: memoryview, still_wanted: Callable[[], None]) -> None:
        """See DeviceArena. The ranks write into the arena that they share with the worker."""
        still_wanted()
        self._ask([ToHost(offset, len(view))] * len(self._ranks))

    def digest(self, commands: Sequence[Command]) -> bytes:
        """One command per rank; a checksum of their checksums."""
        digests = [one.digest for one in self._ask(commands)]
        made: bytes = digests[0] if len(digests) == 1 else xxhash.xxh3_128_digest(b"".join(digests))
        return made

    def let_go(self, peers: Sequence[int]) -> None:
        """Of one peer per rank; ranks that are dead have let go."""
        with suppress(DeviceError):
            self._ask([Close(peer) for peer in peers])

    def close(self) -> None:
        """Close the connections. Idempotent. The memory goes with the ranks."""
        for rank in self._ranks:
            rank.close()

    def _ask(self, commands: Sequence[Command]) -> list[Answer]:
        """One command per rank, side by side. Raises DeviceError once all are through, where one failed."""
        answers = self._hear(commands)
        for answer in answers:
            if answer.why:
                raise DeviceError(answer.why)
        return answers

    def _hear(self, commands: Sequence[Command | None]) -> list[Answer]:
        calls = [None if command is None else rank.begin(command) for rank, command in self._each(commands)]
        return [Answer() if call is None else rank.end(call) for rank, call in self._each(calls)]

    def _each(self, some: Sequence[T]) -> "list[tuple[_Rank, T]]":
        return list(zip(self._ranks, some, strict=True))


class _Peers:
    """A PeerDevice: one peer of each rank."""

    def __init__(self, devices: RankDevices, peers: Sequence[int]) -> None:
        self._devices = devices
        self._peers = peers

    def fetch(self, source: int, offset: int, nbytes: int, still_wanted: Callable[[], None]) -> bytes:
        """See PeerDevice."""
        still_wanted()
        return self._devices.digest([Fetch(peer, source, offset, nbytes) for peer in self._peers])

    def close(self) -> None:
        """See PeerDevice."""
        self._devices.let_go(self._peers)


class _Rank:
    """One rank's server, with as many connections as there were calls at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: SimpleQueue[socket.socket] = SimpleQueue()

    def begin(self, command: Command) -> socket.socket | Answer:
        """Send a command; what `end` wants of it."""
        try:
            sock = self._connection()
        except OSError as error:
            return Answer(why=f"the rank at {self._path.name} cannot be reached: {error}")
        try:
            say(sock, command)
        except OSError as error:
            sock.close()
            return Answer(why=f"the rank at {self._path.name} has gone: {error}")
        return sock

    def end(self, call: socket.socket | Answer) -> Answer:
        """Wait for the answer: until then the rank is in the memory. One that is lost is an answer, too."""
        if isinstance(call, Answer):
            return call
        try:
            answer = hear_answer(call)
        except (OSError, ValueError) as error:
            call.close()
            return Answer(why=f"the rank at {self._path.name} did not answer: {error}")
        self._idle.put(call)
        return answer

    def close(self) -> None:
        """Of the idle ones; no call may be under way."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def _connection(self) -> socket.socket:
        with suppress(Empty):
            return self._idle.get_nowait()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CALL_S)
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        return sock


def _check_kinds(found: Sequence[Answer]) -> None:
    if len({one.kind for one in found}) != 1:
        raise DeviceError(f"the ranks have devices of kinds {[one.kind for one in found]}")


def _handles(handle: bytes) -> list[bytes]:
    try:
        return msgspec.msgpack.decode(handle, type=list[bytes])
    except msgspec.MsgspecError as error:
        raise DeviceError("a peer's handle is not one of several ranks") from error
