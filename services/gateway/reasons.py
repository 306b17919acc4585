"""What exactly stood in the way of a request: the words of `x-baton-reason` beside the code.

Owns the table from the dispatcher's causes to these words; docs/operations.md lists them all.
"""

from typing import Final

from shared.errors import Code
from shared.policy.dispatch_events import Cause

GATEWAY_FULL: Final = "gateway_full"
"""This gateway has as many requests or streams open as it may."""

_CONTENDED: Final = {
    Cause.FULL: "queue_full",
    Cause.DISPLACED: "queue_displaced",
    Cause.DEADLINE: "queue_wait",
    Cause.CROWDED: GATEWAY_FULL,
}


def reason_of(code: Code, cause: Cause) -> str:
    """Say why the dispatcher refused; where nothing was contended the code says all there is."""
    return _CONTENDED.get(cause, str(code)) if code is Code.OVERLOADED else str(code)
