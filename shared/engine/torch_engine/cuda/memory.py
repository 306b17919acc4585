"""What the paged kernels keep on the device between steps, and where the cache's layers lie."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.cuda.rows import SHORT
from shared.engine.torch_engine.cuda.shapes import Heads
from shared.engine.torch_engine.rotary import frequencies


@dataclass(frozen=True, slots=True)
class Memory:
    """Tensors at addresses that never change. The last row of the table, and of `last`, is that of padding."""

    heads: Heads
    planes: list[Tensor]  # of each layer, [blocks, 2, block_size, kv_heads, head_dim]
    frequencies: Tensor  # [kinds, head_dim / 2]
    table: Tensor  # [slots + 1, blocks of the longest sequence], block ids
    last: Tensor  # [slots + 1], the token drawn last
    arrivals: Tensor  # of splits, zero between kernels: [rows * kv_heads]
    processors: int

    @classmethod
    def of(cls, architecture: Architecture, cache: Cache, sequences: int, where: torch.device) -> "Memory":
        """For so many sequences at once."""
        layout = cache.layout
        size = layout.block_tokens
        longest = min(-(-architecture.context // size), cache.number)
        ints = torch.empty(0, dtype=torch.int32, device=where)
        processors = torch.cuda.get_device_properties(where).multi_processor_count if where.type == "cuda" else 1
        return cls(
            Heads(architecture.heads, layout.kv_heads, layout.head_dim, size),
            [cache.plane(layer) for layer in range(layout.layers)],
            torch.stack([frequencies(kind.rope, architecture.head_dim) for kind in architecture.kinds]).to(where),
            ints.new_zeros((sequences + 1, longest)),
            ints.new_zeros(sequences + 1),
            ints.new_zeros((sequences + 1) * SHORT * layout.kv_heads),
            processors,
        )
