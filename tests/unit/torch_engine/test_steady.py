"""The measurement behind steadiness: it finds where the kernel's order changes, and says so where it always does."""

import logging
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from shared.engine.torch_engine import steady


@pytest.fixture(autouse=True)
def _measured_anew() -> Iterator[None]:
    steady.fewest_rows.cache_clear()
    yield
    steady.fewest_rows.cache_clear()


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One row after the other: the same whatever the company."""
    rows = [functional.scaled_dot_product_attention(row, key, value) for row in query.split(1, dim=2)]
    return torch.cat(rows, dim=2)


def test_a_kernel_that_never_changes_its_order_needs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "_attended", attention)
    assert steady.fewest_rows(16) == 1


def test_it_finds_the_number_from_which_on_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def changes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return attention(query, key, value) + (1e-6 if query.shape[2] < 11 or query.shape[2] == 13 else 0)

    monkeypatch.setattr(steady, "_attended", changes)
    assert steady.fewest_rows(16) == 14


@pytest.mark.parametrize("what", ["number", "place"])
def test_where_there_is_no_such_number_it_says_so(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsteady(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        rows = query.shape[2]
        by_place = torch.arange(rows)[None, None, :, None] if what == "place" else torch.tensor(rows)
        return attention(query, key, value) + by_place * 1e-6

    monkeypatch.setattr(steady, "_attended", unsteady)
    with caplog.at_level(logging.WARNING):
        assert steady.fewest_rows(16) == steady.NONE
    assert "a continued text may differ" in caplog.text
