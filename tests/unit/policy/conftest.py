"""The smallest fleet that can serve, for whatever is claimed about a dispatcher."""

import pytest

from shared.policy.dispatch import Dispatcher
from tests.unit.policy.dispatchers import dispatcher_of


@pytest.fixture
def dispatcher() -> Dispatcher:
    """One prefill with one slot, one decode."""
    return dispatcher_of("p1", "d1")
