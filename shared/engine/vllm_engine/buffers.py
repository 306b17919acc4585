"""Where the KV buffers of vLLM's sequences lie: in the arena in host memory, or in its ranks' device arenas.

Owns the arena's marks on this engine's side. A prompt's buffer stays on the devices where there is room for it; what
leaves while it grows, or goes to another host, is in host memory.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from shared.engine import EngineInfo
from shared.engine.vllm_engine.device import RankDevices
from shared.engine.vllm_engine.held import Held
from shared.engine.vllm_engine.notes import Transfer
from shared.errors import EngineFailed, KvRefused
from shared.kv.arena import Arena
from shared.kv.device_arena import DeviceError, has_room


class Buffers:
    """Of one engine."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self._device: RankDevices | None = None

    async def open_devices(self, paths: Sequence[Path], nbytes: int) -> None:
        """Take so many bytes in each rank, of which it uses what is its own of the heads. Raises EngineFailed."""
        try:
            self.arena.device = self._device = await asyncio.to_thread(RankDevices, paths, nbytes)
        except DeviceError as error:
            raise EngineFailed(f"no staging memory of {nbytes} bytes on the devices: {error}", fatal=True) from error

    async def close(self) -> None:
        """Idempotent."""
        device, self._device = self._device, None
        if device is not None:
            self.arena.device = None
            await asyncio.to_thread(device.close)

    def check(self, buffer: memoryview, kv_tokens: int, info: EngineInfo) -> int:
        """Where in the arena the buffer is. Raises KvRefused for one that cannot hold the KV of so many tokens."""
        expected = info.kv_bytes(kv_tokens)
        if len(buffer) != expected:
            raise KvRefused("length", f"the KV of {kv_tokens} tokens takes {expected} bytes, not {len(buffer)}")
        return self.arena.offset_of(buffer)

    def transfer(self, held: Held, offset: int, kv_tokens: int, info: EngineInfo, *, may_stay: bool) -> Transfer:
        """What vLLM is told of a sequence's buffer."""
        if held.prefills and may_stay and has_room(self.arena.device, offset, info.kv_bytes(kv_tokens)):
            held.stays = offset
        on_device = held.stays is not None or (not held.prefills and offset in self.arena.on_device)
        return Transfer(held.number, offset, kv_tokens, info.blocks_for(kv_tokens), on_device)

    def complete(self, held: Held) -> None:
        """A prompt's buffer is complete, wherever it is."""
        if held.stays is not None:
            self.arena.on_device.add(held.stays)
