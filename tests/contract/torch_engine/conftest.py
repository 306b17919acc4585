"""The real Gemma 3 270M, imported once."""

from pathlib import Path

import pytest

from shared.models import resolve


@pytest.fixture(scope="session")
def directory() -> Path:
    path = resolve("gemma-3-270m", "torch", {}).path
    assert path is not None
    return path
