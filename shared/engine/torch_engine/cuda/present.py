"""Whether the kernels of this folder can run. Imports no Triton: it is there on few machines."""

from functools import cache
from importlib.util import find_spec

import torch


@cache
def starts_early(where: torch.device) -> bool:
    """Say whether a kernel may be launched before the one ahead of it has ended, for which it waits by itself.

    What the launch costs is over by then ("programmatic dependent launch", since Hopper). A program of such a kernel
    waits before it reads what the kernel ahead writes, and before it writes anything.
    """
    return where.type == "cuda" and torch.cuda.get_device_capability(where) >= (9, 0)


@cache
def has_kernels(where: torch.device) -> bool:
    """Say whether tensors that lie there can go through the kernels of this folder."""
    return where.type == "cuda" and find_spec("triton") is not None
