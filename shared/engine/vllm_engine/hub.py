"""The worker's end of the notes: ranks register and get their plan, and each transfer's fate is put together.

Owns the socket, its private folder, and who waits for what. A transfer's range is free again when EngineCore is done
with its request and every rank that reads or writes the range has said that it is through; nothing else says so. Must
not know sequences.
"""

import asyncio
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq
import zmq.asyncio

from shared.engine.vllm_engine.notes import (
    MAX_NOTE_BYTES,
    Ended,
    Gathered,
    Loaded,
    Lost,
    Plan,
    Registered,
    Skipped,
    Troubled,
    pack,
    parse,
)
from shared.errors import BatonError, EngineFailed, KvRefused

BACKLOG: Final = 65_536
"""Notes that may wait for this process; each request brings a few."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Passage:
    """One buffer's way between vLLM and the arena."""

    world: int
    moved: asyncio.Future[None]  # every rank has gathered, or loaded; or nobody has to
    over: asyncio.Future[None]  # nobody touches the range any more, and EngineCore has let go of the request
    ranks: set[int] = field(default_factory=set)  # that are through
    why: str = ""  # what was lost
    ended: Ended | None = None

    def through(self, rank: int, why: str = "") -> None:
        """One rank has done its part, well or not."""
        self.ranks.add(rank)
        self.why = self.why or why
        self._settle()

    def end(self, ended: Ended) -> None:
        """EngineCore is done with the request."""
        self.ended = ended
        self._settle()

    def skip(self) -> None:
        """Nothing has to be read."""
        _done(self.moved)

    def fail(self, error: BatonError) -> None:
        """The engine is dead."""
        for future in (self.moved, self.over):
            _failed(future, error)

    def _settle(self) -> None:
        complete = len(self.ranks) >= self.world
        if complete and self.why:
            _failed(self.moved, KvRefused("length", f"vLLM could not move the KV buffer: {self.why}"))
        elif complete:
            _done(self.moved)
        if self.ended is not None and (complete or not self.ended.moves):
            _failed(self.moved, KvRefused("length", "the request ended before its KV had moved"))
            _done(self.over)


class Hub:
    """Made on the event loop. `planned` makes the answer of all registrations and `devices`, or raises ConfigError."""

    def __init__(
        self, planned: Callable[[list[Registered], str], Plan], troubled: Callable[[Troubled], object] = lambda _: None
    ) -> None:
        self._troubled = troubled
        self._planned = planned
        self._folder = tempfile.TemporaryDirectory(prefix="baton-vllm-")  # readable by this user alone
        self.address = f"ipc://{Path(self._folder.name) / 'notes'}"
        self.devices = str(Path(self._folder.name) / "device")  # see Plan
        self._context = zmq.asyncio.Context()
        self._socket: Any = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_NOTE_BYTES)
        self._socket.setsockopt(zmq.RCVHWM, BACKLOG)
        self._socket.bind(self.address)
        self._registered: dict[bytes, Registered] = {}
        self._passages: dict[str, Passage] = {}
        self._world = 0
        self.failed: BaseException | None = None

    @property
    def registrations(self) -> list[Registered]:
        """Of all ranks, lowest first; complete once the engine has started."""
        return sorted(self._registered.values(), key=lambda one: one.rank)

    def open(self, transfer: str) -> Passage:
        """Follow a transfer, from before its request is sent until it is `over`."""
        loop = asyncio.get_running_loop()
        passage = self._passages[transfer] = Passage(self._world, loop.create_future(), loop.create_future())
        return passage

    def drop(self, transfer: str) -> None:
        """Follow it no longer."""
        self._passages.pop(transfer, None)

    async def run(self) -> None:
        """Read notes until cancelled. Raises ConfigError when the ranks cannot be planned for."""
        while True:
            sender, *frames = await self._socket.recv_multipart()
            try:
                note = parse(frames[-1])
            except (msgspec.MsgspecError, IndexError) as error:
                log.warning("a note that is none came from vLLM", extra={"error": str(error)})
                continue
            if isinstance(note, Registered):
                await self._register(sender, note)
            else:
                self._take(note)

    def fail(self, error: EngineFailed) -> None:
        """Everyone who waits is told that the engine is dead."""
        for passage in self._passages.values():
            passage.fail(error)

    def close(self) -> None:
        """Idempotent."""
        self._socket.close(linger=0)
        self._context.term()
        self._folder.cleanup()

    async def _register(self, sender: bytes, note: Registered) -> None:
        self._registered[sender] = note
        if len(self._registered) < note.world:
            return
        self._world = note.world
        plan = self._planned(self.registrations, self.devices)
        for identity in self._registered:
            await self._socket.send_multipart([identity, pack(plan)])

    def _take(self, note: Gathered | Loaded | Lost | Skipped | Ended | Troubled) -> None:
        if isinstance(note, Troubled):
            log.error("vLLM's sampler failed", extra={"sequence": note.key, "error": note.why})
            self._troubled(note)
            return
        passage = self._passages.get(note.transfer)
        if passage is None:
            log.debug("a note of a transfer that nobody follows", extra={"note": repr(note)})
            return
        match note:
            case Gathered(rank=rank) | Loaded(rank=rank):
                passage.through(rank)
            case Lost(rank=rank, why=why):
                log.warning("vLLM lost a KV buffer", extra={"transfer": note.transfer, "rank": rank, "why": why})
                passage.through(rank, why)
            case Skipped():
                passage.skip()
            case Ended():
                passage.end(note)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _failed(future: asyncio.Future[None], error: BatonError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as seen: it need not have a waiter
