"""The engines' way to an NPU, in a process where the name `npu` means a device of PyTorch's own kind for that."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_models import edit, make

REPOSITORY = Path(__file__).resolve().parents[3]
CASES = [REPOSITORY / "tests" / "unit" / name / "npu_cases.py" for name in ("torch_engine", "vllm_engine")]
PAGE = (REPOSITORY / "docs" / "ascend.md").read_text(encoding="utf-8")
VARIANTS = ("llama with biases, tied", "llama 3", "mistral", "qwen 3 with biases, sliding", "gemma 3")
PASSED = len(VARIANTS) + 10
"""Cases that there are at least; fewer means that some were not found."""
HANG_S = 400


@pytest.mark.long
@pytest.mark.timeout(HANG_S + 60)
def test_the_engines_run_on_a_device_called_npu(tmp_path: Path) -> None:
    operators, models = tmp_path / "operators.json", tmp_path / "models"
    for variant in VARIANTS:
        make(variant, models / variant)
        edit(models / variant, eos_token_id=None)
        (models / variant / "generation_config.json").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.npu_backend", "-p", "no:cacheprovider", *map(str, CASES)],
        cwd=REPOSITORY,
        env={**os.environ, "NPU_OPERATORS": str(operators), "NPU_MODELS": str(models), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= PASSED
    ran = set(json.loads(operators.read_text()))
    listed = set(re.findall(r"`([a-z_0-9]+)`", PAGE.partition("<!-- operators -->")[2].partition("<!-- end -->")[0]))
    assert sorted(ran - listed) == [], "operators that the page does not list"
