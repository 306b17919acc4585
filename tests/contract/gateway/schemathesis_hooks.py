"""Loaded by schemathesis: what it generates is kept, but for deadlines that no server can meet, and any headers."""

from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection

PLENTY = 3600
JUDGED = (ParameterLocation.BODY, ParameterLocation.QUERY, ParameterLocation.PATH)


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case, kwargs: Any) -> None:
    """A deadline of next to nothing is rightly answered 504, which schemathesis would take for a fault."""
    given = case.body.get("timeout") if isinstance(case.body, dict) else None
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < PLENTY:
        case.body["timeout"] = PLENTY


@schemathesis.check
def bad_data_is_refused(context: Any, response: Any, case: schemathesis.Case) -> bool | None:
    """Bodies, queries and paths: HTTP lets a client send headers that nobody knows, and the run fixes the others."""
    if case.meta is None or not any(case.meta.is_negative_at(one) for one in JUDGED):
        return None
    return negative_data_rejection(context, response, case)
