"""What a plan must reach: an objective for the first token, one for each further token, and for how many requests."""

import re
from dataclasses import dataclass
from typing import Final

UNITS: Final = {"ms": 1e-3, "s": 1.0, "": 1.0}
WORDS: Final = 'like "ttft=2s,tpot=100ms,share=99%"'


class PlanError(ValueError):
    """What was asked cannot be planned; says why, and what can."""


@dataclass(frozen=True, slots=True)
class Aims:
    """Seconds, and a share of all requests."""

    ttft_s: float
    tpot_s: float
    share: float = 0.99

    def __str__(self) -> str:
        return f"TTFT {self.ttft_s:g} s and TPOT {1000 * self.tpot_s:g} ms for {self.share:.4g} of the requests"


def read_aims(text: str) -> Aims:
    """Read what --slo says. Raises PlanError."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|%|)", value.strip().lower())
        if name not in ("ttft", "tpot", "share") or match is None or name in found:
            raise PlanError(f"{part.strip()!r} is no objective; write them {WORDS}")
        number, unit = float(match[1]), match[2]
        if (name == "share") != (unit in ("%", "")) and not (name != "share" and unit == ""):
            raise PlanError(f"{part.strip()!r}: times are in s or ms, the share in % or of 1; write them {WORDS}")
        found[name] = number / 100 if unit == "%" else number * UNITS.get(unit, 1.0)
    if missing := sorted({"ttft", "tpot"} - found.keys()):
        raise PlanError(f"{' and '.join(missing)} must be given, {WORDS}")
    aims = Aims(found["ttft"], found["tpot"], found.get("share", 0.99))
    if aims.ttft_s <= 0 or aims.tpot_s <= 0 or not 0 < aims.share < 1:
        raise PlanError(f"objectives are above 0 and the share is below all of them, {WORDS}")
    return aims
