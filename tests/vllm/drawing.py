"""One vLLM with our sampler and nothing else of Baton, in a process of its own: sequences in, tokens out.

Run as a module it is that process: it reads lines of JSON and answers each with one.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from shared.engine import Sequence

REPO: Final = Path(__file__).resolve().parents[2]
MARK: Final = "tokens: "
EOS: Final = frozenset({3})
UNSAID: Final = 0xC1
"""No byte of any UTF-8 text."""


class Drawn(NamedTuple):
    """What vLLM says of one sequence."""

    tokens: list[int]
    finish: str
    stop: int | None


class Drawing:
    """The process, seen from a test."""

    def __init__(self, model: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPO),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_USE_V2_MODEL_RUNNER": "0",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.vllm.drawing", str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPO,
            env=environment,
            text=True,
        )

    def draw(self, *sequences: Sequence) -> list[Drawn]:
        """All at once. The test's own time limit bounds the wait."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(sequences).decode() + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return msgspec.json.decode(line.removeprefix(MARK), type=list[Drawn])
        raise AssertionError(f"vLLM died: {self._process.wait()}")

    def close(self) -> None:
        """Stop it."""
        self._process.communicate(timeout=60)


def main() -> None:
    """Serve until the input ends."""
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.config import KVTransferConfig

    from shared.engine.vllm_engine.draws import KEY, stop_token_ids, wanted

    llm = LLM(
        sys.argv[1],
        dtype="float32",
        enforce_eager=True,
        skip_tokenizer_init=True,
        max_model_len=256,
        max_num_seqs=8,
        max_num_batched_tokens=64,  # longer prompts come in chunks
        block_size=32,
        num_gpu_blocks_override=17,  # too few for eight long texts: some are pushed out and come back
        kv_cache_memory_bytes=64 << 20,
        enable_prefix_caching=False,
        logits_processors=["shared.engine.vllm_engine.inside.sampler:BatonSampler"],
        kv_transfer_config=KVTransferConfig(
            kv_connector="IdleConnector",
            kv_connector_module_path="tests.vllm.idle_connector",
            kv_role="kv_both",
            kv_connector_extra_config={"tokenizer": ""},
        ),
    )
    for line in sys.stdin:
        sequences = msgspec.json.decode(line, type=list[Sequence])
        asked = [
            SamplingParams(
                temperature=0.0,
                max_tokens=sequence.stopping.max_tokens - (len(sequence.tokens) - sequence.prompt_tokens),
                ignore_eos=True,
                stop_token_ids=stop_token_ids(sequence, EOS, UNSAID),
                detokenize=False,
                extra_args={KEY: told} if (told := wanted(sequence, EOS, UNSAID)) is not None else None,
            )
            for sequence in sequences
        ]
        prompts = [TokensPrompt(prompt_token_ids=sequence.tokens) for sequence in sequences]
        found = [one.outputs[0] for one in llm.generate(prompts, asked, use_tqdm=False)]
        drawn = [Drawn(list(one.token_ids), str(one.finish_reason), one.stop_reason) for one in found]
        print(MARK + msgspec.json.encode(drawn).decode(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
