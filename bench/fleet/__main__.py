"""`python -m bench.fleet [part ...]`."""

import argparse

from bench.fleet import PARTS, rows
from bench.table import render

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts (default: all)")
    print(render(rows(parser.parse_args().parts or PARTS)))
