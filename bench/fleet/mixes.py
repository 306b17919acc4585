"""Lengths of prompts and answers: the Azure traces of 2023 where they are, else distributions of the same shape.

`BATON_TRACES` names a folder that holds `azure-llm-2023/`; without it lognormal lengths with the medians and means of
those traces are drawn (conversation: prompt 1,020 and 1,155, answer 129 and 211; code: 1,469 and 2,048, 13 and 28).
"""

import csv
import gzip
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

Draw = Callable[[], tuple[int, int]]
SHAPES: Final = {"conv": ((1020, 1155), (129, 211)), "code": ((1469, 2048), (13, 28))}
LONGEST: Final = (4000, 600)
"""Tokens of prompt and answer: longer ones are cut, as by a context limit, so that one request is not a run."""


def mix(name: str, seed: int) -> tuple[str, Draw]:
    """Draw (prompt, answer) lengths of the traffic called conv or code; where they come from is said, too."""
    source = random.Random(seed)  # noqa: S311
    path = Path(os.environ.get("BATON_TRACES", "")) / "azure-llm-2023" / f"AzureLLMInferenceTrace_{name}.csv.gz"
    if os.environ.get("BATON_TRACES") and path.exists():
        rows = _rows(path)
        return f"Azure {name} trace", lambda: _cut(*rows[source.randrange(len(rows))])
    shapes = SHAPES[name]
    return f"lengths like the Azure {name} trace", lambda: _cut(*(_lognormal(source, *shape) for shape in shapes))


def _rows(path: Path) -> list[tuple[int, int]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]


def _lognormal(source: random.Random, median: float, mean: float) -> int:
    return round(source.lognormvariate(math.log(median), math.sqrt(2 * math.log(mean / median))))


def _cut(prompt: int, answer: int) -> tuple[int, int]:
    return min(max(prompt, 8), LONGEST[0]), min(max(answer, 2), LONGEST[1])
