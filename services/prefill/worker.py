"""The parts of a prefill worker, put together on what it stands on."""

import time
from contextlib import AsyncExitStack

from services.prefill.handoff import Handoff
from services.prefill.prompts import Prompts
from services.prefill.slots import Slot, Slots
from shared.errors import BatonError, Draining
from shared.instance import Load
from shared.kv import KvSender
from shared.policy.admission import PrefillAdmission
from shared.worker.linking import Linking
from shared.worker.roster import Roster
from shared.worker.standing import Standing, live, only_watch


class PrefillWorker:
    """Takes prompts, sends first tokens, hands KV buffers over."""

    def __init__(self, standing: Standing, sender: KvSender, slots: int, overlap_from: int = 0) -> None:
        self._standing = standing
        slots = min(slots, standing.engine.info.max_sequences)
        self._admission = PrefillAdmission(slots, standing.arena.size)
        self.roster: Roster[Slot] = standing.roster(self._admission)
        self.resuming = standing.resuming(self.roster)
        self.linking = Linking(standing, sender)
        handoff = Handoff(standing, sender)
        self._prompts = Prompts(standing, self.roster, handoff, self._free, overlap_from=overlap_from)
        self._slots = Slots(standing, self.roster, self._admission, self._prompts.carry)
        standing.metrics.gauge("slots", "Requests it can hold", lambda: slots)
        standing.metrics.gauge("slots_in_use", "Requests it holds", lambda: len(self.roster))
        standing.metrics.gauge("kv_links", "KV connections, moving and kept", lambda: sender.links)
        standing.metrics.gauge("links", "Decodes of its group in the map", lambda: len(standing.links))
        standing.metrics.gauge("links_verified", "Of them, those it can push to", lambda: standing.links.verified)
        standing.metrics.gauge("staging_in_use_bytes", "Reserved KV staging", lambda: standing.arena.in_use)

    async def listen(self, stack: AsyncExitStack) -> None:
        """Take offers until the stack closes; whoever is in then is told to go elsewhere."""
        standing = self._standing
        subjects = standing.subjects
        stack.push_async_callback(self.roster.evict, Draining(f"{standing.name} stops"))
        stack.callback(self.linking.stop)
        await self.resuming.listen(subjects, standing.scenario, stack)
        await standing.peers.listen(standing.bus, subjects, stack, statuses=True)
        cancels = await standing.bus.subscribe(subjects.cancel(standing.scenario), self.roster.hear_cancel)
        stack.push_async_callback(cancels.stop)
        offers = await standing.bus.subscribe(subjects.prefill(standing.scenario, standing.name), self._slots.hear)
        stack.push_async_callback(offers.stop)

    async def watch(self) -> None:
        """Run as long as the engine lives; raises EngineFailed when it dies, everybody having been told."""
        await live(self._standing, self.roster, lambda: only_watch(self._standing.engine))

    async def drain(self, seconds: float) -> None:
        """Take nothing new; finish what is held, within the seconds."""
        await self.roster.drain(seconds)

    def drop(self, error: BatonError) -> None:
        """Others have taken over from us: end everything that was begun."""
        self.roster.stop_all(error)

    def load(self) -> Load:
        """Say what can be taken now."""
        admission, steps = self._admission, self._standing.engine.load().steps
        busy = any(slot.computing for slot in self.roster)  # one that only waits for a decode makes no steps
        work = self._standing.work.read(time.monotonic())
        return Load(slots=admission.slots, free=admission.free, steps=steps, busy=busy, work=work)

    def _free(self, slot: Slot) -> None:
        slot.staging.release()
        if self._admission.left(slot.request_id, slot.attempt):
            self._standing.freed()
