"""Which experiments there are: each is a module of this folder, or several in one.

A module says `NAME`, `TITLE` and `run(seed) -> Findings`, or `EXPERIMENTS`, a tuple of `Experiment`. Modules that say
neither belong to others.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from simulator import experiments
from simulator.experiments.findings import Findings
from simulator.experiments.introductions import INTRODUCTIONS


@dataclass(frozen=True, slots=True)
class Experiment:
    """One figure. The same seed finds the same, to the last digit."""

    name: str  # lower case, as it is called on the command line
    title: str
    run: Callable[[int], Findings]


def found() -> dict[str, Experiment]:
    """All, by name, in the order of the page: as they are introduced, and others behind by name.

    Raises ValueError where two have one name.
    """
    every: dict[str, Experiment] = {}
    for module in pkgutil.iter_modules(experiments.__path__):
        for one in of(importlib.import_module(f"{experiments.__name__}.{module.name}")):
            if one.name in every:
                raise ValueError(f"two experiments are named {one.name}")
            every[one.name] = one
    places = {name: place for place, name in enumerate(INTRODUCTIONS)}
    return {name: every[name] for name in sorted(every, key=lambda name: (places.get(name, len(places)), name))}


def of(module: ModuleType) -> tuple[Experiment, ...]:
    """Those of one module."""
    if hasattr(module, "EXPERIMENTS"):
        return tuple(module.EXPERIMENTS)
    if hasattr(module, "NAME"):
        return (Experiment(module.NAME, module.TITLE, module.run),)
    return ()
