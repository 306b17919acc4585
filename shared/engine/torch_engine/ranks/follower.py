"""A rank other than the first, in a process of its own: does what the leader tells it, in order, until that ends.

Owns its part of the weights, its heads of the cache, and a mapping of the worker's arena. Decides nothing.
"""

import mmap
import os
import select
import threading
from pathlib import Path
from typing import Final

from shared.engine.torch_engine.architecture import read_architecture
from shared.engine.torch_engine.device import DTYPES, resolve
from shared.engine.torch_engine.executor import Executor
from shared.engine.torch_engine.options import read_options
from shared.engine.torch_engine.ranks.collective import Group
from shared.engine.torch_engine.ranks.line import Line
from shared.engine.torch_engine.ranks.moves import Moves
from shared.engine.torch_engine.ranks.notes import (
    Begin,
    Close,
    Done,
    Export,
    Forward,
    Join,
    TakeIn,
    ToFollower,
    for_follower,
    pack,
)
from shared.engine.torch_engine.ranks.plans import Hearing
from shared.engine.torch_engine.ranks.shards import shard
from shared.engine.torch_engine.sizing import kv_layout

BEGIN_S: Final = 60.0
ORPHANED: Final = 3
"""The exit status of a follower whose leader is gone."""


class Follower:
    """Made of the first note. Raises ConfigError or EngineFailed when this rank cannot be what it is to be."""

    def __init__(self, begin: Begin) -> None:
        options = read_options(begin.options)
        device = self._device = resolve(options.device, options.threads, options.cpus)
        architecture = read_architecture(Path(begin.directory))
        part, dtype = shard(architecture, begin.rank, begin.world), DTYPES[begin.dtype]
        layout = kv_layout(Path(begin.directory), architecture, options, begin.dtype)
        self._group = Group(begin.rank, begin.world, device, float(options.rank_timeout_s))
        self._executor = Executor(
            Path(begin.directory),
            architecture,
            device,
            dtype,
            quantization=options.quantization,
            layout=layout,
            blocks=begin.blocks,
            sequences=options.max_num_seqs,
            shard=part,
            group=self._group,
        )
        self._moves = Moves(layout, part, dtype, self._executor)
        self._hearing = Hearing()
        self._arena = memoryview(mmap.mmap(begin.arena_fd, begin.arena_bytes))
        os.close(begin.arena_fd)

    def obey(self, note: ToFollower) -> bool:
        """Do one thing; whether the leader waits for a Done."""
        match note:
            case Forward():
                self._executor.forward(self._hearing.plan(note))
                return False
            case TakeIn(blocks, tokens, offset, nbytes):
                self._moves.take_in(blocks, tokens, self._arena[offset : offset + nbytes])
            case Export(blocks, offset, nbytes):
                self._moves.export(blocks, self._arena[offset : offset + nbytes])
            case Join(port):
                self._group.join(port)
            case Begin() | Close():
                raise AssertionError(f"{note} comes first or last")
        return True

    def close(self) -> None:
        """Free the device."""
        self._group.close()
        self._executor.close()


def follow(line: Line) -> None:
    """One life. Raises LineEnded when the leader is gone, and whatever goes wrong."""
    threading.Thread(target=_die_with_leader, args=(line.fileno(),), name="leader", daemon=True).start()
    begin = for_follower(line.receive(BEGIN_S))
    if not isinstance(begin, Begin):
        raise TypeError(f"the leader begins with {begin}")
    follower = Follower(begin)
    line.send(pack(Done()))
    while not isinstance(note := for_follower(line.receive(None)), Close):
        if follower.obey(note):
            line.send(pack(Done()))
    follower.close()


def _die_with_leader(fd: int) -> None:
    """End this process when the line's other end is closed: its main thread may wait for the leader for ever."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    poll.poll()
    os._exit(ORPHANED)
