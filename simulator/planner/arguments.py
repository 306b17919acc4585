"""The words of `baton plan`."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        "--trace",
        type=Path,
        required=True,
        metavar="FILE",
        help="Azure, Mooncake, own JSON lines; or a ServeGen folder",
    )
    parser.add_argument("--slo", required=True, metavar="TEXT", help="like ttft=2s,tpot=100ms,share=99%%")
    parser.add_argument(
        "--profile",
        action="append",
        metavar="P",
        help="a published one, or a file of `baton profile`; again for more to choose from (h200-llama-8b)",
    )
    parser.add_argument("--times", type=float, default=1.0, metavar="X", help="the trace's rate, times that (1)")
    parser.add_argument(
        "--cache-blocks",
        type=int,
        default=0,
        metavar="N",
        help="of a prefill's prefix cache, in the trace's blocks (0: none)",
    )
    parser.add_argument("--block-tokens", type=int, default=512, metavar="N", help="of one of the trace's blocks (512)")
    parser.add_argument(
        "--spread", action="store_true", help="requests with one time stamp at random until the next one"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn by lot (0)")
    parser.add_argument("--json", action="store_true", help="for programs")
