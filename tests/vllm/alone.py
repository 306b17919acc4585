"""One vLLM by itself, in a process of its own: what the relay's texts are compared with.

`python -m tests.vllm.alone MODEL` reads `{"dtype": ..., "asks": [[prompt, max_tokens], ...]}` from stdin and prints
the greedy texts as JSON in the line that begins with MARK; vLLM prints what it likes around it.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).parents[2]
QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
HANGS_S: Final = 900.0
MARK: Final = "texts "
Ask = tuple[str, int]
"""A prompt, and the tokens that follow it."""


def texts_alone(model: Path, asks: list[Ask], dtype: str = "float32") -> list[str]:
    """What vLLM writes for them, greedily, with nothing of ours in it. Blocks for a minute."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.vllm.alone", str(model)],
        cwd=REPO,
        env={**os.environ, **QUIET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, said = process.communicate(json.dumps({"dtype": dtype, "asks": asks}), timeout=HANGS_S)
    finally:
        with suppress(ProcessLookupError):  # vLLM's own processes would outlive it
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said[-4000:]
    line = next(line for line in printed.splitlines() if line.startswith(MARK))
    texts: list[str] = json.loads(line.removeprefix(MARK))
    return texts


def main() -> None:
    """Be that process."""
    from tokenizers import Tokenizer
    from vllm import LLM, SamplingParams

    asked = json.load(sys.stdin)
    model = Path(sys.argv[1])
    engine = LLM(str(model), dtype=asked["dtype"], enforce_eager=True, max_model_len=2048)
    params = [SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True) for _, count in asked["asks"]]
    answers = engine.generate([prompt for prompt, _ in asked["asks"]], params, use_tqdm=False)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    # decoded as a whole: vLLM's own text lacks a last character that is cut in two
    texts = [tokenizer.decode(list(answer.outputs[0].token_ids), skip_special_tokens=True) for answer in answers]
    sys.stdout.write(f"\n{MARK}{json.dumps(texts)}\n")


if __name__ == "__main__":
    main()
