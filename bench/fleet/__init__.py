"""The fleet under load: what forwarding by rejection, the ratio, substitution, upgrades and tides are worth.

`python -m bench fleet`, or a part of it: `python -m bench.fleet forwarding`. Every figure stands beside a baseline of
the same run. The sim engine keeps the time of an accelerator; see `house`. All of it takes about twenty minutes.
"""

import asyncio
import importlib
from collections.abc import Sequence

from bench.table import Row

PARTS = ("forwarding", "ratio", "changes")


def rows(parts: Sequence[str] = PARTS) -> list[Row]:
    """Run parts one after another."""
    found: list[Row] = []
    for part in parts:
        print(f"fleet: {part} ...", flush=True)
        found += asyncio.run(importlib.import_module(f"bench.fleet.{part}").rows())
    return found
