"""The threshold of top-k and top-p without sorting: by bisection of the numbers' bits, each row read about 60 times.

A row of 128k logits stays in a GPU's cache, so one kernel for all rows costs less than a sort, and nothing has to be
known of the rows beforehand. Only where there is Triton; the sums, and so the threshold, are the same in every call.
"""

import importlib.util
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Bisect = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of scaled logits [rows, vocabulary], each row's greatest 0, top-k and top-p [rows]: the least one kept, [rows]."""


@cache
def bisection(device: torch.device) -> Bisect | None:
    """What finds thresholds on that device; None where it is better to sort."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from shared.engine.sampling.bisection_kernel import least_kept  # noqa: PLC0415  only here there is Triton

    return least_kept
