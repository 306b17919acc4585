"""The parts of a GPU's hand-off by themselves, each beside the copy that the hardware makes of as many bytes.

2 GiB of blocks in no order, 16k tokens of an 8B model. Gather: against a copy of one contiguous piece on the device,
bytes read and written counted in both. To the host and back: the cache's export into an arena and its taking in,
against a copy between the device and one contiguous piece of pinned memory. From process to process: what carries the
bytes, against that same copy on the device; the push's checksums, tickets and confirmation are in `kv_device`'s rows.
In turns; of each the best round counts.
"""

import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

import torch
from torch import Tensor

from bench.table import Row
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.device import Device, resolve
from shared.kv.arena import Arena
from shared.kv.cuda_arena import CudaArena
from shared.kv.cuda_driver import HANDLE_BYTES, Driver
from shared.kv.layout import KvLayout

LAYOUT: Final = KvLayout("bench", "bfloat16", layers=32, kv_heads=8, head_dim=128, block_tokens=16)
BLOCKS: Final = 1024
TOKENS: Final = BLOCKS * LAYOUT.block_tokens
NBYTES: Final = BLOCKS * LAYOUT.block_bytes
ROUNDS: Final = 20
DEADLINE_S: Final = 60.0


def rows() -> list[Row]:
    """Run it; nothing without a GPU."""
    if not torch.cuda.is_available():
        return []
    with torch.inference_mode():
        best = _best()
    both, once = 2 * NBYTES / 1e9, NBYTES / 1e9
    rate = {name: (once if "host" in name else both) / seconds for name, seconds in best.items()}
    return [
        Row("kv gather on the device, 2 GiB", rate["gather"], "GB/s", "copy on the device", rate["copy"]),
        Row("kv scatter on the device, 2 GiB", rate["scatter"], "GB/s", "copy on the device", rate["copy"]),
        Row("kv copy between two processes, 2 GiB", rate["across"], "GB/s", "copy on the device", rate["copy"]),
        Row("kv gather to the host, 2 GiB", rate["to host"], "GB/s", "pinned copy to the host", rate["pinned host"]),
        Row("kv scatter from the host, 2 GiB", rate["host to"], "GB/s", "pinned copy from it", rate["from host"]),
    ]


def _best() -> dict[str, float]:
    device = resolve("cuda:0")
    cache, arena = Cache(LAYOUT, BLOCKS, torch.bfloat16, device), Arena(NBYTES)
    blocks = random.Random(1).sample(range(1, BLOCKS + 1), BLOCKS)  # noqa: S311  no secret
    staged, other = (torch.zeros(NBYTES, dtype=torch.uint8, device=device.where) for _ in range(2))
    pinned = torch.empty(NBYTES, dtype=torch.uint8, pin_memory=True)
    view = arena.reserve(NBYTES).view
    across = _Across(device)
    ways: dict[str, Callable[[], float]] = {
        "copy": lambda: _device_s(lambda: other.copy_(staged)),
        "gather": lambda: _device_s(lambda: cache.gather(blocks, staged)),
        "scatter": lambda: _device_s(lambda: cache.scatter(blocks, staged)),
        "pinned host": lambda: _device_s(lambda: pinned.copy_(staged, non_blocking=True)),
        "to host": lambda: _wall_s(lambda: cache.export(blocks, view)),
        "from host": lambda: _device_s(lambda: staged.copy_(pinned, non_blocking=True)),
        "host to": lambda: _wall_s(lambda: cache.take_in(blocks, TOKENS, view)),
        "across": across.seconds,
    }
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(way())
    across.close()
    view.release()
    arena.close()
    return {name: min(seconds) for name, seconds in times.items()}


class _Across:
    """A process that copies our memory into its own. Its times are its own clock's."""

    def __init__(self, device: Device) -> None:
        self._memory = CudaArena(NBYTES, device.where.index or 0)
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        arguments = theirs, self._memory.handle[:HANDLE_BYTES], device.where.index or 0
        self._process = context.Process(target=_copies, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def seconds(self) -> float:
        """One copy's."""
        self._ours.send(None)
        if not self._ours.poll(DEADLINE_S):
            raise TimeoutError("the benchmark's other process does not answer")
        return float(self._ours.recv())

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.join(DEADLINE_S)
        self._memory.close()


def _copies(pipe: Connection, handle: bytes, index: int) -> None:
    driver = Driver(index)
    address = driver.open(handle)
    mine: Tensor = torch.zeros(NBYTES, dtype=torch.uint8, device=f"cuda:{index}")
    stream = torch.cuda.current_stream()
    while True:
        try:
            pipe.recv()
        except EOFError:
            break
        pipe.send(_device_s(lambda: driver.copy(mine.data_ptr(), address, NBYTES, stream.cuda_stream)))
    driver.close(address)


def _device_s(work: Callable[[], object]) -> float:
    """How long the device takes, by its own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _wall_s(work: Callable[[], object]) -> float:
    """How long the caller waits."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
