"""Profiles by calculation: a model's shape on a device's data sheet, split over 1, 2, 4 or 8 of them.

For what nobody has measured yet. Efficiencies are those that Baton's torch engine reached on an H200 (prefill 0.83 of
what a large product reaches, decode 0.80 of reading; docs/performance.md); the peaks are data sheets'.
"""

from dataclasses import dataclass
from typing import Final

from simulator.engine.forms import Roofline
from simulator.engine.profile import Profile

MULTIPLIES: Final = 0.65
"""Of the peak that prompts reach: 657 of 989 TFLOP/s on the H200."""
READS: Final = 0.75
"""Of the peak that decoding reaches: 0.85 of the 4.2 TB/s that a copy reaches, of 4.8."""
LINKS: Final = 0.7
FOR_KV: Final = 0.9
"""Of the memory beside the weights."""
OVERHEAD_S: Final = 1.5e-3
"""Of a step, beside its products: launching, sampling, the batch's bookkeeping. As measured with CUDA graphs."""
SEQUENCE_S: Final = 5e-6
SUM_S: Final = 10e-6
"""Of one all-reduce of little: assumed, as NCCL's within a node."""
LOAD_BYTES_S: Final = 2e9
"""Of weights from a local SSD."""


@dataclass(frozen=True, slots=True)
class Device:
    """Peaks by data sheet, in SI units. `price`: of an hour, to compare by; not a quotation."""

    name: str
    flops: float  # 16 bits, dense
    read_bytes_s: float
    memory: float
    link_bytes_s: float  # to the others of its node
    price: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder. Sizes in numbers; `width`: bytes of a weight."""

    name: str
    weights: float
    active: float  # of them, by one token
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    width: int = 2


DEVICES: Final = {
    device.name: device
    for device in (
        Device("h100", 989e12, 3.35e12, 80e9, 450e9, 1.0),
        Device("h200", 989e12, 4.8e12, 141e9, 450e9, 1.15),
        Device("a100", 312e12, 2.04e12, 80e9, 300e9, 0.5),
        Device("ascend-910b", 376e12, 1.6e12, 64e9, 196e9, 0.4),
    )
}
SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape("llama-8b", 8.03e9, 8.03e9, 32, 4096, 32, 8, 128),
        Shape("llama-70b", 70.6e9, 70.6e9, 80, 8192, 64, 8, 128),
        Shape("mixtral-8x7b", 46.7e9, 12.9e9, 32, 4096, 32, 8, 128),
    )
}


def calculated(
    shape: Shape,
    device: Device,
    tensor_parallel: int = 1,
    *,
    max_sequences: int = 256,
    overhead_s: float = OVERHEAD_S,
    sequence_s: float = SEQUENCE_S,
    reads: float = READS,
) -> Profile:
    """The profile of one instance. Raises ValueError where the weights do not fit."""
    bytes_of_weights = shape.weights * shape.width
    room = tensor_parallel * device.memory - bytes_of_weights
    if room <= 0:
        raise ValueError(f"{shape.name} does not fit on {tensor_parallel} {device.name}")
    kv_bytes = 2 * 2 * shape.layers * shape.kv_heads * shape.head
    timing = Roofline(
        weight_bytes=bytes_of_weights,
        active_share=shape.active / shape.weights,
        token_flops=2 * shape.active,
        pair_flops=4.0 * shape.layers * shape.heads * shape.head,
        kv_bytes=kv_bytes,
        row_bytes=2.0 * shape.hidden * 2 * shape.layers,
        sums=2 * shape.layers,
        tensor_parallel=tensor_parallel,
        flops=MULTIPLIES * device.flops,
        read_bytes_s=reads * device.read_bytes_s,
        link_bytes_s=LINKS * device.link_bytes_s,
        sum_s=SUM_S,
        overhead_s=overhead_s,
        sequence_s=sequence_s,
    )
    return Profile(
        name=f"{device.name}-{shape.name}-tp{tensor_parallel}",
        timing=timing,
        kv_tokens=int(FOR_KV * room / kv_bytes),
        kv_bytes_per_token=kv_bytes,
        max_sequences=max_sequences,
        devices=tensor_parallel,
        load_s=bytes_of_weights / tensor_parallel / LOAD_BYTES_S + 10.0,
        price=device.price,
        source="calculated from data sheets",
        strategy=f"tp{tensor_parallel}",
    )
