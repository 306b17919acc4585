"""Forms of timing: ours, fitted from measurements; those of other simulators; tables; a roofline. Seconds come out.

Each is a checked value that a profile's file holds under its `form`. What a mixed step takes is the same rule for all
but ours, which was measured, and the roofline, which knows more: the prompt's part and the decoding part read the
weights once between them, so whichever is longer carries the other, and what each further sequence and token of context
costs is added.
"""

from bisect import bisect_right
from typing import Annotated

import msgspec

from simulator.engine.timing import Timing

Coefficient = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
Large = Annotated[float, msgspec.Meta(ge=0.0, le=1e18)]
Signed = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
Measure = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
LEAST_S = 1e-6
"""No step is shorter, whatever a formula makes of small numbers."""


class Form(msgspec.Struct, frozen=True, tag_field="form", forbid_unknown_fields=True):
    """What all have in common. Each is a Timing."""

    def mixed_s(self: Timing, new: int, behind: int, batch: int, context: float) -> float:
        """See Timing: max(prompt's part, a step of nothing) + what the batch adds to such a step."""
        nothing = self.step_s(0, 0.0)
        return max(self.prefill_s(new, behind), nothing) + max(0.0, self.step_s(batch, context) - nothing)


class Linear(Form, frozen=True, tag="linear"):
    """Ours. A prompt of n new tokens behind c cached ones: fixed + max(floor, token*n) + pair*n*(c + n/2) + cached*c.

    Up to the floor a prompt takes as long as reading the weights, or launching the kernels. Pairs are what attention
    looks at: each new token at the cached ones and at half of the new ones; `cached` is the reading of what is cached.
    A step of B sequences with K tokens together: step + sequence*B + context*K. Seconds.

    A mixed step is a step and, after it, the prompt without its floor, which the step fills. Measured on an H200 (its
    profile's file has the points): of 12, prompts of 512 to 8192 tokens beside 1 to 256 sequences, this is 7 % below
    in the mean, and 2 % above once the copying out of the prompt's KV is taken off in full; by the general rule it
    would be 16 % and 8 % below. Reading the weights once for both saves little where multiplying takes longer.
    """

    prefill_fixed_s: Coefficient
    prefill_token_s: Coefficient
    prefill_pair_s: Coefficient
    step_fixed_s: Coefficient
    step_sequence_s: Coefficient
    step_context_s: Coefficient
    prefill_floor_s: Coefficient = 0.0
    prefill_cached_s: Coefficient = 0.0

    def prefill_s(self, new: int, cached: int) -> float:
        """See Timing."""
        computing = max(self.prefill_floor_s, self.prefill_token_s * new)
        return self.prefill_fixed_s + computing + self._looking_s(new, cached)

    def _looking_s(self, new: int, cached: int) -> float:
        """Of a prompt's time its attention, and the reading of what is cached."""
        return self.prefill_pair_s * new * (cached + new / 2) + self.prefill_cached_s * cached

    def step_s(self, batch: int, context: float) -> float:
        """See Timing."""
        return self.step_fixed_s + self.step_sequence_s * batch + self.step_context_s * context

    def mixed_s(self, new: int, behind: int, batch: int, context: float) -> float:
        """See Timing: max(the prompt alone, the prompt without its floor + the step)."""
        unfloored = self.prefill_fixed_s + self.prefill_token_s * new + self._looking_s(new, behind)
        return max(self.prefill_s(new, behind), unfloored + self.step_s(batch, context))


class Sim(Form, frozen=True, tag="sim"):
    """The sim engine's: a*t*t + b*t + c for a prompt of which t tokens are not cached; a step by its batch. ms."""

    prefill_ms: tuple[Coefficient, Coefficient, Coefficient]
    decode_step_ms: Coefficient
    decode_seq_ms: Coefficient = 0.0

    def prefill_s(self, new: int, cached: int) -> float:  # noqa: ARG002
        """See Timing."""
        a, b, c = self.prefill_ms
        return (a * new * new + b * new + c) / 1000

    def step_s(self, batch: int, context: float) -> float:  # noqa: ARG002
        """See Timing."""
        return max(LEAST_S, (self.decode_step_ms + self.decode_seq_ms * batch) / 1000)


class Dynamo(Form, frozen=True, tag="dynamo"):
    """The mocker of NVIDIA Dynamo (PerfModel::Polynomial): ms by new tokens n, and by p, the cache's share in use.

    prefill[0]*n*n + prefill[1]*n + prefill[2], and decode[0]*p*p + decode[1]*p + decode[2], 1 at least.
    """

    kv_tokens: Annotated[int, msgspec.Meta(ge=1)]  # of the cache that p is a share of
    prefill: tuple[Signed, Signed, Signed] = (4.209989e-07, 1.518344e-02, 1.650142e01)
    decode: tuple[Signed, Signed, Signed] = (-25.74, 54.01, 5.74)

    def prefill_s(self, new: int, cached: int) -> float:  # noqa: ARG002
        """See Timing."""
        a, b, c = self.prefill
        return max(LEAST_S, (a * new * new + b * new + c) / 1000)

    def step_s(self, batch: int, context: float) -> float:  # noqa: ARG002
        """See Timing."""
        a, b, c = self.decode
        p = min(1.0, context / self.kv_tokens)
        return max(1.0, a * p * p + b * p + c) / 1000


class DistServe(Form, frozen=True, tag="distserve"):
    """DistServe's simulator (OSDI 2024): ms; a prompt a + b*n + c*n*n, a step a + b*K + c*B (K tokens, B sequences).

    Its files (simdistserve/estimators/profile_data) have two decode fits, `decoding_smallbs` and `decoding_largebs`,
    the second for `large_from` sequences or more (`decoding_large_small_bs_threshold`). Where one ends and the other
    begins, a step of one more sequence may be shorter.
    """

    prefill: tuple[Signed, Signed, Signed]
    decode: tuple[Signed, Signed, Signed]
    decode_large: tuple[Signed, Signed, Signed] | None = None  # None: the one fit holds for every batch
    large_from: Annotated[int, msgspec.Meta(ge=0)] = 0

    def prefill_s(self, new: int, cached: int) -> float:  # noqa: ARG002
        """See Timing."""
        a, b, c = self.prefill
        return max(LEAST_S, (a + b * new + c * new * new) / 1000)

    def step_s(self, batch: int, context: float) -> float:
        """See Timing."""
        a, b, c = self.decode if self.decode_large is None or batch < self.large_from else self.decode_large
        return max(LEAST_S, (a + b * context + c * batch) / 1000)


class Points(Form, frozen=True, tag="points"):
    """Measured points, as Vidur, AIConfigurator or Dynamo's own grids have them, and straight lines between these.

    `prefill`: (tokens, ms) from the fewest up. `decode`: (batch, tokens of each sequence, ms), a whole grid of both.
    Beyond the ends the last piece goes on.
    """

    prefill: tuple[tuple[Measure, Measure], ...]
    decode: tuple[tuple[Measure, Measure, Measure], ...]

    def __post_init__(self) -> None:
        """Raises ValueError where the points are no line, or no grid."""
        tokens = [at for at, _ in self.prefill]
        if len(tokens) < 2 or tokens != sorted(set(tokens)):  # noqa: PLR2004
            raise ValueError("prefill wants two points or more, from the fewest tokens up")
        batches, lengths = self._axes()
        if len(batches) < 2 or len(lengths) < 2 or len(self.decode) != len(batches) * len(lengths):  # noqa: PLR2004
            raise ValueError("decode wants a grid: each of two batches or more with each of two lengths or more")

    def _axes(self) -> tuple[list[float], list[float]]:
        return sorted({batch for batch, _, _ in self.decode}), sorted({length for _, length, _ in self.decode})

    def prefill_s(self, new: int, cached: int) -> float:
        """See Timing. What is cached costs its attention alone: the curve's growth beyond its first piece."""
        (t0, ms0), (t1, ms1) = self.prefill[:2]
        whole = _between(self.prefill, new + cached) - _between(self.prefill, cached) if cached else 0.0
        alone = _between(self.prefill, new)
        growth = (ms1 - ms0) / (t1 - t0) * new
        return max(LEAST_S, max(alone, alone - growth + whole) / 1000)

    def step_s(self, batch: int, context: float) -> float:
        """See Timing."""
        batches, lengths = self._axes()
        length = context / batch if batch else 0.0
        times = {(b, n): ms for b, n, ms in self.decode}
        by_batch = [(b, _between([(n, times[b, n]) for n in lengths], length)) for b in batches]
        return max(LEAST_S, _between(by_batch, batch) / 1000)


class Roofline(Form, frozen=True, tag="roofline"):
    """What a device can read and multiply at most, for a decoder split over `tensor_parallel` devices. SI units.

    A step reads the weights that its batch needs (of a mixture of experts those that somebody is sent to), the KV of
    its context, and sums its rows over the devices twice a layer; `overhead_s` and `sequence_s` are what an engine adds
    to each step and for each sequence in it. Roofline: Williams et al. 2009.
    """

    weight_bytes: Large
    active_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]  # of the weights, that one token needs
    token_flops: Large  # of one token through the weights
    pair_flops: Large  # of one token's look at another, over all layers
    kv_bytes: Large  # of one token
    row_bytes: Large  # of one token that are summed over the devices, over all layers
    sums: Annotated[int, msgspec.Meta(ge=0)]  # a step: two a layer
    tensor_parallel: Annotated[int, msgspec.Meta(ge=1)]
    flops: Large  # of one device, that are reached
    read_bytes_s: Large
    link_bytes_s: Large
    sum_s: Coefficient  # of one sum of nothing
    overhead_s: Coefficient
    sequence_s: Coefficient

    def _weights_s(self, tokens: float) -> float:
        """Reading, or multiplying by, the weights that so many tokens need, whichever is longer."""
        unread: float = (1.0 - self.active_share) ** max(1.0, tokens)
        read = self.weight_bytes * (1.0 - unread)
        split = self.tensor_parallel
        return max(read / split / self.read_bytes_s, tokens * self.token_flops / split / self.flops)

    def _sums_s(self, tokens: float) -> float:
        if self.tensor_parallel == 1:
            return 0.0
        share = 2.0 * (self.tensor_parallel - 1) / self.tensor_parallel
        return self.sums * self.sum_s + tokens * self.row_bytes * share / self.link_bytes_s

    def prefill_s(self, new: int, cached: int) -> float:
        """See Timing."""
        pairs = new * (cached + new / 2) * self.pair_flops / self.tensor_parallel / self.flops
        return self.overhead_s + self._weights_s(new) + pairs + self._sums_s(new)

    def step_s(self, batch: int, context: float) -> float:
        """See Timing."""
        kv = context * self.kv_bytes / self.tensor_parallel / self.read_bytes_s
        return self.overhead_s + self._weights_s(batch) + kv + self.sequence_s * batch + self._sums_s(batch)

    def mixed_s(self, new: int, behind: int, batch: int, context: float) -> float:
        """See Timing. All tokens go through the weights together; a mixture's are read once, not for each side."""
        pairs = new * (behind + new / 2) * self.pair_flops / self.tensor_parallel / self.flops
        kv = context * self.kv_bytes / self.tensor_parallel / self.read_bytes_s
        together = self._weights_s(new + batch) + self._sums_s(new + batch)
        return self.overhead_s + together + pairs + kv + self.sequence_s * batch


def _between(points: "tuple[tuple[float, float], ...] | list[tuple[float, float]]", at: float) -> float:
    """A line through the points."""
    place = min(max(bisect_right(points, (at, float("inf"))), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[place - 1], points[place]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


Forms = Linear | Sim | Dynamo | DistServe | Points | Roofline
