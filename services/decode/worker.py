"""The parts of a decode worker, put together on what it stands on."""

import time
from contextlib import AsyncExitStack
from typing import Final

from services.decode.batch import Batch
from services.decode.incoming import Member
from services.decode.intake import Intake
from services.decode.local import LocalPrompts
from services.decode.streams import Streams
from shared.errors import BatonError, Draining
from shared.instance import Load
from shared.kv import KvReceiver
from shared.policy.admission import DecodeAdmission
from shared.worker.roster import Roster
from shared.worker.standing import Standing, live

WAITING: Final = 4
"""KV buffers that may wait for a place in the batch. Few: each one has chosen its decode too early."""


class DecodeWorker:
    """Takes KV buffers in, decodes, publishes frames; computes prompts of fewer than `local_below` tokens itself."""

    def __init__(self, standing: Standing, receiver: KvReceiver, local_below: int = 0) -> None:
        self._standing = standing
        info = standing.engine.info
        self._admission = DecodeAdmission(info.blocks, standing.arena.size, info.max_sequences, WAITING)
        self.roster: Roster[Member] = standing.roster(self._admission)
        self.resuming = standing.resuming(self.roster)
        self._streams = Streams(standing.engine, standing.sender, standing.pieces, standing.metrics, standing.work)
        batch = Batch(standing, self.roster, self._admission, self._streams)
        self._intake = Intake(standing, self.roster, self._admission, receiver, batch)
        self._local = LocalPrompts(standing, self.roster, self._admission, batch, below=local_below)
        metrics = standing.metrics
        metrics.gauge("slots", "Requests it can hold", lambda: info.max_sequences)
        metrics.gauge("slots_in_use", "Requests it holds, granted pushes included", lambda: len(self.roster))
        metrics.gauge("streams", "Sequences in the batch", lambda: len(self._streams))
        metrics.gauge("local_prompts", "Prompts computed at this decode", lambda: self._admission.local)
        metrics.gauge("tickets", "KV pushes granted, moving, or arrived and not taken yet", lambda: receiver.expected)
        metrics.gauge("kv_links", "KV connections, moving and kept", lambda: receiver.links)
        metrics.gauge("staging_in_use_bytes", "Reserved KV staging", lambda: standing.arena.in_use)
        metrics.gauge("blocks_free", "KV blocks that no sequence uses", lambda: standing.engine.load().free_blocks)

    async def listen(self, stack: AsyncExitStack) -> None:
        """Take offers until the stack closes; whoever is in then is told to go elsewhere."""
        standing = self._standing
        subjects = standing.subjects
        stack.push_async_callback(self.roster.evict, Draining(f"{standing.name} stops"))
        await self.resuming.listen(subjects, standing.scenario, stack)
        await standing.peers.listen(standing.bus, subjects, stack, statuses=False)
        cancels = await standing.bus.subscribe(subjects.cancel(standing.scenario), self.roster.hear_cancel)
        stack.push_async_callback(cancels.stop)
        offers = await standing.bus.subscribe(subjects.decode(standing.scenario, standing.name), self._intake.hear)
        stack.push_async_callback(offers.stop)
        prompts = await standing.bus.subscribe(subjects.prefill(standing.scenario, standing.name), self._local.hear)
        stack.push_async_callback(prompts.stop)

    async def pump(self) -> None:
        """Publish tokens as long as the engine lives; raises EngineFailed when it dies, everybody having been told."""
        await live(self._standing, self.roster, self._streams.pump)

    async def drain(self, seconds: float) -> None:
        """Take nothing new; finish what is held, within the seconds."""
        await self.roster.drain(seconds)

    def drop(self, error: BatonError) -> None:
        """Others have taken over from us: end everything that was begun."""
        self.roster.stop_all(error)

    def load(self) -> Load:
        """Say what can be taken now."""
        info, load = self._standing.engine.info, self._standing.engine.load()
        return Load(
            slots=info.max_sequences,
            free=self._admission.free,
            steps=load.steps,
            busy=len(self._streams) > 0 or self._local.computing,
            kv_free_bytes=load.free_blocks * info.block_bytes,
            work=self._standing.work.read(time.monotonic()),
        )
