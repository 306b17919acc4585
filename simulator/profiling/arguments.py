"""The words of `baton profile`: the command line takes them, and hands them to a process of its own."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Add all but --config, which every command has."""
    parser.add_argument("--scenario", metavar="S", help="whose engine (the first one configured)")
    parser.add_argument("--engine", choices=("torch", "vllm", "sim"), help="instead of the configured one")
    parser.add_argument("--model", metavar="PATH_OR_NAME", help="instead of the configured one")
    parser.add_argument("--name", metavar="NAME", help="of the profile (that of the model)")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="of one instance (1)")
    parser.add_argument("--price", type=float, default=1.0, metavar="P", help="of one device's hour (1)")
    parser.add_argument(
        "--seconds", type=float, default=120.0, metavar="S", help="to measure, one round at least (120)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the profile goes (NAME.json)")


def again(options: argparse.Namespace) -> list[str]:
    """The words that say the same."""
    names = ("config", "scenario", "engine", "model", "name", "devices", "price", "seconds", "out")
    told = ((name, getattr(options, name)) for name in names)
    return [word for name, value in told if value is not None for word in (f"--{name}", str(value))]
