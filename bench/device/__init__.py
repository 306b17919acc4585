"""The torch engine on an accelerator, at the sizes of Llama 3.1 8B with random weights.

`python -m bench device`, or with options `python -m bench.device --parts decode prefill --json FILE`. In parts, each of
which prints as it goes and writes its figures at once: what the device copies and multiplies; a decoding step at
several batches against that; a prompt against that; the whole relay with prefill and decode as two processes on the one
device; and the same load where one process does both.
"""

from typing import TYPE_CHECKING

from bench.table import Row

if TYPE_CHECKING:
    from bench.device.plan import Plan


def rows(plan: "Plan | None" = None) -> list[Row]:
    """Measure and compare. Raises RuntimeError without an accelerator, unless it is to be done without."""
    from bench.device.parts import run  # noqa: PLC0415  torch, which who only lists benchmarks need not have

    return run(plan)
