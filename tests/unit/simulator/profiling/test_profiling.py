"""A profile of the sim engine says what the sim engine was told."""

import json
from pathlib import Path

import pytest

from services.cli import main as baton
from simulator.engine.kept import of_sim, read_profile
from simulator.profiling.__main__ import main

OPTIONS = {
    "decode_step_ms": 12,
    "decode_seq_ms": 0.5,
    "prefill_ms": [0.00002, 0.05, 8],
    "prefill_batch": 2,
    "max_num_seqs": 16,
    "max_model_len": 4096,
}


def config(folder: Path) -> Path:
    path = folder / "baton.toml"
    options = "\n".join(f"{key} = {json.dumps(value)}" for key, value in OPTIONS.items())
    path.write_text(f'[scenario.chat]\nmodel = "sim"\nengine = "sim"\n[scenario.chat.engine_options]\n{options}\n')
    return path


def test_what_was_measured_of_the_sim_engine_are_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    assert main(["--config", str(config(tmp_path)), "--seconds", "0.1", "--name", "mine", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "prompt of 1024 tokens behind 0" in told
    found, true = read_profile(str(out)), of_sim(OPTIONS)
    assert found.name == "mine"
    assert found.prefill_at_once == 2
    assert (found.kv_tokens, found.max_sequences) == (true.kv_tokens, true.max_sequences)
    # a timer wakes up late, never early: the machine's part is some milliseconds at most when it is not overloaded
    assert 0.9 * true.timing.prefill_s(1024, 0) < found.timing.prefill_s(1024, 0) < 3 * true.timing.prefill_s(1024, 0)
    assert 0.9 * true.timing.step_s(16, 16 * 500) < found.timing.step_s(16, 16 * 500) < 4 * true.timing.step_s(16, 0)
    assert json.loads(out.read_text())["measured"]["rounds"] >= 1


def test_the_command_runs_it_in_a_process_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ["profile", "--config", str(config(tmp_path)), "--seconds", "0.1", "--price", "2.5", "--out", str(out)]
    assert baton(words) == 0
    assert read_profile(str(out)).price == 2.5


def test_a_scenario_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(config(tmp_path)), "--scenario", "code"]) == 2
    assert "there is no scenario 'code'; there are: chat" in capsys.readouterr().err
