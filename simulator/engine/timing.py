"""What a timing model answers. Forms: `linear` (ours, fitted from measurements), those of other simulators, tables."""

from typing import Protocol


class Timing(Protocol):
    """Seconds that one engine needs. Pure, and increasing in every argument."""

    def prefill_s(self, new: int, cached: int) -> float:
        """One prompt of which `new` tokens are computed behind `cached` ones, alone on the engine."""
        ...

    def step_s(self, batch: int, context: float) -> float:
        """One decode step of `batch` sequences that hold `context` tokens together."""
        ...

    def mixed_s(self, new: int, behind: int, batch: int, context: float) -> float:
        """One step that computes `new` prompt tokens, `behind` of the same prompt being there, beside such a batch."""
        ...
