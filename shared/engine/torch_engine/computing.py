"""What a runner needs of whatever computes: an `Executor`, or one that leads those of several ranks."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.view import Scores
from shared.kv.arena import Arena


class Computes(Protocol):
    """Called by the one thread that owns it."""

    @property
    def overlaps(self) -> bool:
        """A step may be launched, with what `keep` hands on, before the tokens of the one before are read."""
        ...

    def capture(self, sequences: int) -> None:
        """Make steps of up to so many decoding sequences cheap to launch, where the device has a way."""
        ...

    def forward(self, plan: Plan) -> Scores:
        """Have the plan computed; on an accelerator it returns before that is done."""
        ...

    def keep(self, scores: Scores, tokens: Tensor) -> None:
        """Hand the tokens drawn from the scores, [rows], on to the next step. Only where it overlaps."""
        ...

    def stage(self, arena: Arena, nbytes: int) -> None:
        """Give the arena memory on the device, where it has any use there. Raises EngineFailed."""
        ...

    def take_in(self, blocks: Sequence[int], tokens: int, buffer: memoryview) -> None:
        """Scatter a buffer of so many tokens into the first of the blocks; the others become zero."""
        ...

    def export(self, blocks: Sequence[int], buffer: memoryview, *, in_host: bool) -> None:
        """Gather the blocks into the buffer, or into its place on the device where that may be."""
        ...

    def close(self) -> None:
        """Free the device."""
        ...
