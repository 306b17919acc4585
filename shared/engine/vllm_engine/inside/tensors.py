"""vLLM's KV tensors as slabs: which axis is which, and blocks in and out of them.

Needs torch, not vLLM. Owns the knowledge of layouts; must not know where the bytes go. A tensor may be a strided view
of one allocation for all layers, so that it is indexed and copied as the tensor that it is, never reinterpreted as
bytes; only copies of it are contiguous, heads outside: [head][block][slab].
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from shared.engine.vllm_engine.geometry import Share
from shared.engine.vllm_engine.notes import Part
from shared.errors import ConfigError

# By the number of axes: of a layer's only tensor, and of one of several. B: blocks, H: heads, N: tokens of a block.
ALONE: Final = {3: "BNC", 4: "BHNC", 5: "B2NHC"}  # 3: MLA; 4: vLLM 0.32, and the CPU in 0.23; 5: CUDA in 0.23
AMONG: Final = {3: "BNC", 4: "BNHC"}  # Ascend: K and V apart, or MLA's two halves
INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""A copy need not know about floats, and not every device can index the small ones."""


class KvTensor:
    """One KV tensor in this rank. `heads` axis first in all that goes out or comes in."""

    def __init__(self, name: str, tensor: Tensor, axes: str, share: Share, blocks: int) -> None:
        self.share = share
        self.blocks = blocks
        self.device = tensor.device
        self.dtype = INTEGERS[tensor.element_size()]
        self._tensor = tensor.view(self.dtype)  # of the same width, so that strides do not matter
        self._head_axis = axes.index("H") if "H" in axes and share.count > 1 else 0
        self.ratio = tensor.shape[0] // blocks  # kernel blocks in one of the manager's
        slab = tensor[0].numel() * self.ratio // share.count
        self.slab_bytes = slab * tensor.element_size()
        self.part = Part(name, share.heads, share.first, share.count, self.slab_bytes)
        self.shape = (
            f"{axes} {tensor.dtype} {[size for axis, size in zip(axes, tensor.shape, strict=True) if axis not in 'BH']}"
        )

    def rows(self, ids: Sequence[int]) -> Tensor:
        """The kernel's blocks of the manager's blocks `ids`, int64, on the CPU. Raises IndexError for unknown ids."""
        if not ids or min(ids) < 0 or max(ids) >= self.blocks:
            raise IndexError(f"blocks {min(ids, default=None)} to {max(ids, default=None)} of {self.blocks}")
        index = torch.tensor(ids, dtype=torch.int64)
        if self.ratio == 1:
            return index
        return (index[:, None] * self.ratio + torch.arange(self.ratio)).flatten()

    def gather(self, rows: Tensor) -> Tensor:
        """A contiguous copy of `rows` (on this tensor's device): [heads, elements]."""
        taken = self._tensor.index_select(0, rows)
        if self._head_axis:
            taken = taken.movedim(self._head_axis, 0)
        return taken.reshape(self.share.count, -1)

    def scatter(self, rows: Tensor, piece: Tensor) -> None:
        """Write into `rows` what `gather` would give of them: [heads, elements], of any strides."""
        rest = list(self._tensor.shape[1:])
        if self._head_axis:
            heads = rest.pop(self._head_axis - 1)
            source = piece.reshape(heads, len(rows), *rest).movedim(0, self._head_axis)
        else:
            source = piece.reshape(len(rows), *rest)
        self._tensor.index_copy_(0, rows, source)

    def column(self, memory: Tensor, skip: int) -> Tensor:
        """This rank's run of a buffer (uint8) as [heads, elements], without the first `skip` blocks of each head."""
        return memory.view(self.dtype).view(self.share.count, -1)[:, skip * self.slab_bytes // self.dtype.itemsize :]


def kv_tensors(
    layers: Mapping[str, Tensor | Sequence[Tensor]], blocks: int, block_tokens: int, shares: Mapping[str, Share]
) -> list[KvTensor]:
    """What vLLM registers, layer by layer in the order of computing; layers that share a tensor give it once.

    Raises ConfigError for shapes that no known layout explains.
    """
    seen: set[tuple[object, ...]] = set()
    found = []
    for layer in sorted(layers, key=_depth):
        value = layers[layer]
        alone = isinstance(value, Tensor)
        for place, tensor in enumerate([value] if isinstance(value, Tensor) else value):
            where = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            if tensor.numel() and where not in seen:
                seen.add(where)
                name = layer if alone else f"{layer}/{place}"
                axes = _axes(name, tensor, (ALONE if alone else AMONG), (blocks, block_tokens, shares[layer]))
                found.append(KvTensor(name, tensor, axes, shares[layer], blocks))
    return found


def _depth(layer: str) -> int:
    """A layer's number, the first in its name; sorting is stable where there is none."""
    return next((int(word) for word in layer.split(".") if word.isdigit()), -1)


def _axes(name: str, tensor: Tensor, known: Mapping[int, str], sizes: tuple[int, int, Share]) -> str:
    """The layout of a tensor, a letter per axis. Raises ConfigError naming the shape."""
    blocks, block_tokens, share = sizes
    shape = tuple(tensor.shape)
    axes = known.get(len(shape), "")
    ratio = shape[0] // blocks if shape else 0
    kernel_tokens = block_tokens // ratio if ratio and block_tokens % ratio == 0 else 0
    wanted = {"B": blocks * ratio, "H": share.count, "N": kernel_tokens, "2": 2}
    fits = (
        axes and kernel_tokens and all(wanted.get(axis, size) == size for axis, size in zip(axes, shape, strict=True))
    )
    if not fits or ("H" not in axes and share.count > 1) or tensor.element_size() not in INTEGERS:
        held = f"{blocks} blocks of {block_tokens} tokens and {share.count} KV heads in this rank"
        raise ConfigError([f"KV tensor {name} has shape {shape}, which is not understood for {held}"])
    return axes
