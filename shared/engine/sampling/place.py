"""What draws need of the device that holds the logits."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Place(Protocol):
    """The device that holds the logits."""

    @property
    def sampling_rows(self) -> int:
        """Rows of logits worked on at once."""
        ...

    def upload(self, host: Tensor) -> Tensor:
        """Copy a small host tensor to the device, in stream order."""
        ...


def numbers(values: Sequence[float | tuple[float, ...]], place: Place) -> Tensor:
    """On the device. torch.tensor itself would wait until it is there."""
    return place.upload(torch.tensor(values))
