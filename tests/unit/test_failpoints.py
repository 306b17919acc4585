"""Failpoints: what arms them, when they act, and that each one is really somewhere in the code."""

import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.failpoints import NAMES, VARIABLE, arm, failpoint, spared
from shared.kv.link import Link, aside

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    arm({})


def test_nothing_happens_unless_it_is_armed() -> None:
    arm({})
    failpoint("decode.step")
    arm({VARIABLE: "decode.ending=raise"})
    failpoint("decode.step")
    arm({})
    failpoint("decode.ending")


def test_it_acts_at_the_given_passing_and_only_once() -> None:
    arm({VARIABLE: "decode.step=raise@3; decode.ending=memory"})
    failpoint("decode.step")
    failpoint("decode.step")
    with pytest.raises(RuntimeError, match=r"failpoint decode\.step"):
        failpoint("decode.step")
    failpoint("decode.step")
    with pytest.raises(MemoryError):
        failpoint("decode.ending")
    failpoint("decode.ending")


def test_who_is_spared_passes_unhurt_and_is_not_counted() -> None:
    arm({VARIABLE: "decode.step=raise@2"})
    with spared():
        for _ in range(5):
            failpoint("decode.step")
    failpoint("decode.step")
    with pytest.raises(RuntimeError):
        failpoint("decode.step")


async def test_who_is_spared_is_so_in_the_threads_that_push_for_it() -> None:
    arm({VARIABLE: "kv.pushing=raise"})
    here, there = socket.socketpair()
    link = Link(here)
    with ThreadPoolExecutor(1) as threads:
        with spared():
            await aside(threads, link, lambda: failpoint("kv.pushing"))
        with pytest.raises(RuntimeError):
            await aside(threads, link, lambda: failpoint("kv.pushing"))
    link.close()
    there.close()


def test_sleeping_blocks_the_thread() -> None:
    arm({VARIABLE: "decode.step=sleep:0.05"})
    before = time.monotonic()
    failpoint("decode.step")
    assert time.monotonic() - before >= 0.05


@pytest.mark.parametrize(
    "spec", ["decode.stpe=kill", "decode.step", "decode.step=", "decode.step=explode", "decode.step=kill@0",
             "decode.step=kill@x", "decode.step=sleep", "decode.step=sleep:-1", "decode.step=sleep:inf",
             "decode.step=kill:9", "decode.step=exit:x"],
)  # fmt: skip
def test_a_bad_specification_is_refused_and_arms_nothing_wrong(spec: str) -> None:
    with pytest.raises(ConfigError) as refused:
        arm({VARIABLE: f"{spec};prefill.accepted=kill@1x"})
    assert len(refused.value.faults) == 2


@pytest.mark.parametrize(("deed", "status"), [("kill", -9), ("exit:7", 7)])
def test_a_process_can_be_made_to_end(deed: str, status: int) -> None:
    code = "import os; from shared.failpoints import arm, failpoint; arm(os.environ); failpoint('decode.step')"
    ended = subprocess.run([sys.executable, "-c", code], env={VARIABLE: f"decode.step={deed}"}, cwd=REPO, check=False)
    assert ended.returncode == status


def test_each_name_has_one_place_in_the_code_and_no_place_has_another_name() -> None:
    places = Counter(
        name
        for folder in ("services", "shared")
        for file in (REPO / folder).rglob("*.py")
        for name in re.findall(r"(?<!def )\bfailpoint\(\"([^\"]+)\"\)", file.read_text(encoding="utf-8"))
    )
    assert places == Counter(NAMES)


def test_a_service_with_a_bad_specification_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "baton.toml"
    config.write_text('[nats]\nurl = "nats://127.0.0.1:1"\n[redis]\nurl = "redis://127.0.0.1:1"\n')
    ended = subprocess.run(
        [sys.executable, "-m", "services.monitor", "--config", str(config)],
        env={VARIABLE: "nowhere=kill"},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "there is no failpoint 'nowhere'" in ended.stderr
