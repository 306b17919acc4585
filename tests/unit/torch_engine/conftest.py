"""Tiny models gain nothing from a second thread, and lose much where others need the core."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """After a test that set another number."""
    yield
    torch.set_num_threads(1)
