"""`python -m bench.device [options]`."""

import argparse
import json
from typing import Any

from bench.device import rows
from bench.device.plan import MORE_PARTS, PARTS, SHAPES, Plan
from bench.table import render

SMALL: dict[str, Any] = {
    "batches": (1, 4),
    "context": 64,
    "steps": 8,
    "prompt": 256,
    "kv_cache_mb": 256,
    "serving_kv_mb": 64,
    "staging_mb": 64,
    "streams": 8,
    "request_prompt": 48,
    "request_answer": 8,
    "seconds": 2.0,
    "rates": 3,
}
"""For the tiny shape: to see that all of it runs."""


def main() -> None:
    """Read the options, run and print."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m bench.device", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default=plan.shape)
    parser.add_argument("--device", default=plan.device)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, *MORE_PARTS], default=plan.parts)
    parser.add_argument("--folder", default=plan.folder, help="for the model's files, 16 GB")
    parser.add_argument("--json", default=plan.json, help="a file for the figures")
    parser.add_argument("--rates", type=int, default=plan.rates, help="tried at most")
    parser.add_argument("--seconds", type=float, default=plan.seconds, help="of arrivals at one rate")
    parser.add_argument("--options", type=json.loads, default={}, help="of the engines, as JSON")
    asked = vars(parser.parse_args())
    print(render(rows(Plan(**{**asked, **(SMALL if asked["shape"] == "tiny" else {})}))))


if __name__ == "__main__":
    main()
