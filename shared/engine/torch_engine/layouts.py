"""Which layout of steps a device gets."""

import torch

from shared.engine.torch_engine.architecture import Architecture
from shared.engine.torch_engine.cache import Cache
from shared.engine.torch_engine.cuda.present import has_kernels
from shared.engine.torch_engine.device import Device
from shared.engine.torch_engine.gathered import GatheredLayout
from shared.engine.torch_engine.view import Layout


def layout_for(
    architecture: Architecture, cache: Cache, device: Device, dtype: torch.dtype, *, sequences: int
) -> Layout:
    """The fastest one there, for at most so many sequences at once. Of a shard, `architecture` is its own part."""
    if has_kernels(device.where):
        from shared.engine.torch_engine.cuda.paged import PagedLayout  # noqa: PLC0415  only there is Triton

        return PagedLayout(architecture, cache, device, dtype, sequences=sequences)
    return GatheredLayout(architecture, cache, device, dtype)
