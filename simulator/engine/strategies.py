"""ScaleLLM's strategies: Mixtral 8x7B in 8 bits on H100, split over 8, 4 or 2 devices, fitted to its Figure 8.

Three numbers are fitted, everything else is the roofline. At one request the three strategies give 186, 173 and 147
tokens/s: 5.4, 5.8 and 6.8 ms a step, whose differences are the reading of the active weights from fewer devices, at the
data sheet's bandwidth; the rest is the engine's own, OVERHEAD_S. What a sequence adds is between what one replica of
each takes at 64. The caption says "for batch size 64", and its curves stop growing there: no batch is larger.
"""

from dataclasses import replace
from typing import Final

from simulator.engine.profile import Profile
from simulator.engine.roofline import DEVICES, SHAPES, calculated

DEGREES: Final = (8, 4, 2)
ALL: Final = 8
"""Devices together."""
OVERHEAD_S: Final = 4.2e-3
SEQUENCE_S: Final = 0.095e-3
READS: Final = 1.0
BATCH: Final = 64
CONCURRENCY: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FIGURE_8: Final = {
    8: (186, 337, 586, 1_058, 1_909, 3_269, 4_744, 5_269, 4_846, 4_546),
    4: (173, 325, 595, 1_041, 1_805, 3_268, 5_754, 8_273, 7_295, 7_275),
    2: (147, 283, 530, 920, 1_491, 2_623, 4_852, 9_147, 15_792, 17_047),
}
"""Tokens per second that the paper's plot shows, by the degree of tensor parallelism and the concurrency."""


def strategy(degree: int) -> Profile:
    """One replica."""
    shape = replace(SHAPES["mixtral-8x7b"], width=1)
    profile = calculated(
        shape,
        DEVICES["h100"],
        degree,
        max_sequences=BATCH,
        overhead_s=OVERHEAD_S,
        sequence_s=SEQUENCE_S,
        reads=READS,
    )
    return replace(profile, source="ScaleLLM, Figure 8")
