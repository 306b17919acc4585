"""`python -m bench [name ...]`: run the benchmarks (unless named, all that need nothing more) and print one table."""

import argparse
import importlib
import sys

from bench import plots
from bench.table import Row, render

NAMES = ("gateway", "decode", "engine", "steps", "kv", "handoff", "fleet")
BY_NAME = ("vllm", "device", "plots", "simulation", "validation")
"""Run only when named: they need an environment or a machine of their own, or measure nothing."""


def main() -> int:
    """Run and print; a benchmark that breaks is reported and the others still run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, *BY_NAME, []], help="which benchmarks (default: all)")
    parser.add_argument("--peers", action="store_true", help="gateway: the same load through other gateways too")
    parser.add_argument("--draw", action="store_true", help="keep the figures for docs/performance, and draw them")
    options = parser.parse_args()
    names = [*(options.names or NAMES), *(["gateway_peers"] if options.peers else [])]
    rows: list[Row] = []
    broken = []
    for name in names:
        print(f"bench {name} ...", flush=True)
        try:
            rows += importlib.import_module(f"bench.{name}").rows()
        except Exception as error:  # noqa: BLE001  one benchmark's failure must not hide the others' figures
            broken.append(f"{name}: {error!r}")
    print(render(rows))
    if options.draw:
        plots.record(rows)
    for line in broken:
        print("broken:", line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
