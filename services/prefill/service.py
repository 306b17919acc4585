"""The prefill service: a prefill worker in the life of an instance."""

import gc
from contextlib import AsyncExitStack

from services.prefill.worker import PrefillWorker
from shared.becoming import Becoming
from shared.checkup import Checkup
from shared.config import Config
from shared.engine import Probed
from shared.instance import Instance, Load
from shared.kv.sender import Sender
from shared.messages import AssignRole, Role
from shared.worker.opening import open_model, open_standing, taken_over


class Prefill:
    """See `shared.lifecycle.Service`."""

    role = Role.PREFILL

    def __init__(self) -> None:
        self.becoming = Becoming()
        self._instance: Instance | None = None
        self._worker: PrefillWorker | None = None

    def prepare(self, config: Config) -> None:
        """Import the engine and load the tokenizer."""
        self._model = open_model(config, self.role)

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        """Start the engine, then listen."""
        self._instance = instance
        standing = await open_standing(instance, self._model, stack)
        sender = Sender(standing.arena, instance.config.kv)
        stack.push_async_callback(sender.close)
        settings = instance.config.scenarios[instance.scenario]
        self._worker = worker = PrefillWorker(standing, sender, settings.prefill_slots, settings.overlap_tokens)
        _ = instance.vital.spawn(worker.watch(), name=f"{instance.id} engine")
        _ = instance.vital.spawn(worker.resuming.watch(), name=f"{instance.id} orphans")
        _ = instance.vital.spawn(worker.linking.run(instance.ready), name=f"{instance.id} links")
        instance.when_broken(lambda: worker.drop(taken_over(instance)))
        probed = standing.engine if isinstance(standing.engine, Probed) else None
        _ = instance.vital.spawn(Checkup(instance, probed).run(), name=f"{instance.id} checkup")
        await worker.listen(stack)
        gc.freeze()  # what was loaded stays for good: the collector need not walk it while tokens wait

    def load(self) -> Load:
        """Say what can be taken now."""
        return self._worker.load() if self._worker is not None else Load()

    async def drain(self, seconds: float) -> None:
        """Take nothing new; let what is held leave."""
        if self._worker is not None:
            await self._worker.drain(seconds)

    async def assign(self, order: AssignRole) -> None:
        """Accept another role; what is held is finished first."""
        if self._instance is not None:
            await self.becoming.accept(self._instance, order)
