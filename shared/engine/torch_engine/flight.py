"""A step between its launch and its landing, when its tokens are read. Pure.

Where a device overlaps, the next step is launched while one is in the air. All that a step does to the cache was put
into the device's one stream when it was launched, and so is all that comes later: the blocks of a sequence that is
released meanwhile can be handed out at once, since whoever gets them writes after the step has, and so does an export,
which reads what the steps before it wrote.
"""

from dataclasses import dataclass

from shared.engine.torch_engine.drawing import Drawn
from shared.engine.torch_engine.scheduler import Plan
from shared.engine.torch_engine.sequence import Run


@dataclass(frozen=True, slots=True)
class Flight:
    """One step that was launched."""

    samples: list[Run]  # whose next tokens it draws
    drawn: Drawn
    grown: list[str]  # prompts of which it computes more, and somebody waits for that
    waits: bool  # the next step may be launched before this one's tokens are read


def may_wait(plan: Plan, samples: list[Run]) -> bool:
    """Whether the step after this one can be launched without its tokens.

    Not where the next draw depends on which token came. Nor where KV leaves after the step: its gather would have to
    wait for the next one.
    """
    leaves = any(chunk.completes or chunk.run.grows for chunk in plan.chunks)
    return not leaves and not any(run.follows for run in samples)
