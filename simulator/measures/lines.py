"""What work costs in executed lines of Python: the same on every machine, whatever else it does."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines(work: Callable[[], object]) -> int:
    """Count the lines that the work executes, every turn of a loop included."""
    number = 0

    def trace(_frame: FrameType, event: str, _arg: Any) -> Any:  # noqa: ANN401  what sys.settrace wants
        nonlocal number
        number += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return number
