"""llama.cpp beside the servers: its own loop without a server, at one stream, where a build of it is to be had.

It reads the GGUF file that the model's package carries, or that file written in another of its formats. There is no
HTTP, no tokenising and no text between it and its figures, which is in its favour.
"""

import importlib
import json
import subprocess
from pathlib import Path
from typing import Final

from bench.load import REPO, Measured
from bench.vllm.plan import Plan
from shared.models.known import KNOWN

FORMATS: Final = {"llama.cpp, Q4_K_M": "", "llama.cpp, Q8_0": "Q8_0", "llama.cpp, BF16": "BF16"}
"""What the package's file is written as first; as it is where that is empty."""


def _importable(python: str) -> bool:
    return not subprocess.run([python, "-c", "import llama_cpp"], check=False, capture_output=True).returncode


def figures(name: str, plan: Plan, folder: Path) -> dict[int, Measured]:
    """By number of streams, which is one; nothing where llama_cpp is not installed or has no such model."""
    known = KNOWN.get(plan.model)
    if known is None or not _importable(plan.llama_python):
        print(f"  {name} is left out: no llama_cpp, or no GGUF of {plan.model}", flush=True)
        return {}
    file = folder / "model.gguf"
    importlib.import_module(known.package).assemble(file)
    asked = {
        "file": str(file),
        "as_format": FORMATS[name],
        "prompt": plan.prompt,
        "answer": plan.answer,
        "threads": plan.cores,
        "turns": plan.turns * plan.least_requests,
    }
    argv = [plan.llama_python, "-m", "bench.vllm.llama_loop"]
    done = subprocess.run(argv, input=json.dumps(asked).encode(), check=False, capture_output=True, cwd=REPO)
    if done.returncode:
        raise RuntimeError(f"llama.cpp failed: {done.stderr.decode(errors='replace')[-2000:]}")
    seen = json.loads(done.stdout)
    made = Measured(seen["tokens_s"], seen["first_ms"], seen["first_ms"], seen["between_ms"], seen["between_ms"])
    print(f"  {name}, 1 stream: {made.tokens_s:.1f} tokens/s, {made.tpot_p50_ms:.2f} ms between tokens", flush=True)
    return {1: made}
