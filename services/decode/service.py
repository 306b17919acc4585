"""The decode service: a decode worker in the life of an instance."""

from contextlib import AsyncExitStack

from services.decode.worker import DecodeWorker
from shared.config import Config
from shared.instance import Instance, Load
from shared.kv.receiver import Receiver
from shared.messages import Role
from shared.worker.opening import open_model, open_standing, taken_over


class Decode:
    """See `shared.lifecycle.Service`."""

    role = Role.DECODE

    def __init__(self) -> None:
        self._worker: DecodeWorker | None = None

    def prepare(self, config: Config) -> None:
        """Import the engine and load the tokenizer."""
        self._model = open_model(config)

    async def open(self, instance: Instance, stack: AsyncExitStack) -> None:
        """Start the engine, open the way in for KV, then listen."""
        standing = await open_standing(instance, self._model, stack)
        receiver = await Receiver.open(instance.config.kv, standing.arena)
        stack.push_async_callback(receiver.close)
        self._worker = worker = DecodeWorker(standing, receiver)
        _ = instance.vital.spawn(worker.pump(), name=f"{instance.id} engine")
        _ = instance.vital.spawn(worker.resuming.watch(), name=f"{instance.id} orphans")
        instance.when_broken(lambda: worker.drop(taken_over(instance)))
        await worker.listen(stack)

    def load(self) -> Load:
        """Say what can be taken now."""
        return self._worker.load() if self._worker is not None else Load()

    async def drain(self, seconds: float) -> None:
        """Take nothing new; let what runs finish."""
        if self._worker is not None:
            await self._worker.drain(seconds)
