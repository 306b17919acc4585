"""What this machine takes beyond the engines' computing, fitted by the simulator to a load that is compared nowhere."""

from collections.abc import Sequence
from itertools import cycle
from typing import Final

from simulator.measures.distribution import Distribution
from simulator.validation.loads import CALIBRATION, LENGTHS
from simulator.validation.record import Costs
from simulator.validation.served import Answer, Served, Take
from simulator.validation.simulated import simulated

BEGIN: Final = Costs(0.001, 0.001, 64e6)
ROUNDS: Final = 8
UNQUEUED: Final = 20.0
"""Percentile of the times to a first token: so many prompts and more find a prefill idle."""
LEAST: Final = 1e-6
"""Of a time in seconds that must not be 0."""


def costs(takes: Sequence[Take]) -> Costs:
    """Fit them to runs of `CALIBRATION`, whose cluster is busy: there all takes longer than where it is idle.

    A hand-off is what comes between the first token and the last: two messages, the network's exchange, and a time for
    each token of KV, which prompts of two lengths tell apart. A first token has an offer there and a token back behind
    it, and the edge. What the simulated runs lack is added to the costs, until nothing lacks.
    """
    real = Served.of(takes, CALIBRATION)
    kv_bytes = CALIBRATION.options["kv_bytes_per_token"]
    short, long = LENGTHS
    found = BEGIN
    for _ in range(ROUNDS):
        ours = simulated(CALIBRATION, found, takes)
        lacks = {tokens: _handing_s(real, tokens) - _handing_s(ours, tokens) for tokens in LENGTHS}
        first_s = sum(_first_s(real, tokens) - _first_s(ours, tokens) for tokens in LENGTHS) / len(LENGTHS)
        token_s = (lacks[long] - lacks[short]) / (long - short)
        message_s = (lacks[short] - short * token_s) / 2
        found = Costs(
            max(LEAST, found.message_s + message_s),
            max(0.0, found.edge_s + first_s - 2 * message_s),
            kv_bytes / max(LEAST, kv_bytes / found.kv_bytes_s + token_s),
        )
    return found


def _handing_s(served: Served, tokens: int) -> float:
    """From the first token to the last, in the mean; the steps are in it, and are the same on both sides."""
    steps = CALIBRATION.arrivals()[0].output_tokens - 1
    return steps * Distribution(one.tpot_ms or 0.0 for one in _to(served, tokens)).mean / 1000


def _first_s(served: Served, tokens: int) -> float:
    """To the first token, of those that waited for no other prompt."""
    return Distribution(one.ttft_ms or 0.0 for one in _to(served, tokens)).percentile(UNQUEUED) / 1000


def _to(served: Served, tokens: int) -> list[Answer]:
    """The answers to prompts of that length that ended well."""
    pairs = zip(served.answers, cycle(CALIBRATION.arrivals()), strict=False)
    return [answer for answer, one in pairs if answer.ok and one.input_tokens == tokens]
