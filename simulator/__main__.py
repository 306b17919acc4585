"""`python -m simulator [NAME ...]`: run experiments, print what each found, and with --draw keep it for the page."""

import argparse
import sys
import time

from simulator.experiments import page
from simulator.experiments.registry import Experiment, found
from simulator.experiments.telling import kept, text

SEED = 8
"""Of the figures on the page."""


def main(arguments: list[str] | None = None) -> int:
    """All experiments, or those named, one after another. Ends with 2 where a name is not known."""
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which experiments (default: all)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of all that is drawn by lot (default: {SEED})")
    parser.add_argument("--draw", action="store_true", help="keep what was found in docs/simulation, and draw it")
    parser.add_argument("--list", action="store_true", help="name the experiments")
    options = parser.parse_args(arguments)
    every = found()
    if options.list:
        width = max((len(name) for name in every), default=0)
        print("\n".join(f"{one.name:{width}}  {one.title}" for one in every.values()))
        return 0
    if unknown := [name for name in options.names if name not in every]:
        parser.error(f"no experiment is named {', '.join(unknown)}; there are: {', '.join(every)}")
    if options.draw:
        try:
            page.check()
        except page.NoCheckout as error:
            parser.error(str(error))
    for name in options.names or every:
        _run(every[name], options.seed, list(every) if options.draw else None)
    return 0


def _run(experiment: Experiment, seed: int, order: list[str] | None) -> None:
    """Run one and tell; with an order, keep it for the page."""
    print(f"{experiment.title}\n", flush=True)
    begin = time.perf_counter()
    findings = experiment.run(seed)
    took = time.perf_counter() - begin
    print(text(findings.table))
    print(f"\n{findings.says}\n" if findings.says else "")
    print(f"{experiment.name}, seed {seed}: {took:.1f} s\n")
    if order is not None:
        page.keep(kept(experiment, seed, findings), order)


if __name__ == "__main__":
    sys.exit(main())
