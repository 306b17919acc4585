"""Models: from the name in the configuration to what gateway and workers must know, without loading any weights."""

from shared.models.resolving import resolve
from shared.models.spec import ModelSpec

__all__ = ["ModelSpec", "resolve"]
