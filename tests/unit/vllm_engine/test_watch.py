"""A process of vLLM does not outlive its owner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.engine.vllm_engine.inside import watch

HERE = Path.cwd()
WATCHER = (
    "import sys, time\n"
    "from shared.engine.vllm_engine.inside.watch import die_with\n"
    "die_with(int(sys.argv[1])); die_with(int(sys.argv[1]))\n"
    "print('up', flush=True)\n"
    "time.sleep(600)\n"
)


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_process_is_killed_when_its_owner_is_killed_though_it_is_not_its_child() -> None:
    owner = sleeper()
    process = subprocess.Popen([sys.executable, "-c", WATCHER, str(owner.pid)], stdout=subprocess.PIPE, cwd=HERE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert process.poll() is None
        owner.kill()  # and not waited for: a zombie has ended too
        assert process.wait(timeout=20) == -signal.SIGKILL
    finally:
        owner.kill()
        owner.wait()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_process_whose_owner_is_gone_already_ends_at_once() -> None:
    owner = sleeper()
    owner.kill()
    owner.wait()
    result = subprocess.run(
        [sys.executable, "-c", WATCHER, str(owner.pid)], timeout=20, capture_output=True, check=False, cwd=HERE
    )
    assert result.returncode == -signal.SIGKILL


def test_without_pidfds_the_owner_is_looked_at_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(pid: int, flags: int = 0) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", none)
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    owner = sleeper()
    try:
        os.kill(owner.pid, signal.SIGKILL)
        started = time.monotonic()
        watch.wait_for_end(owner.pid)  # of a zombie
        assert time.monotonic() - started < 10
    finally:
        owner.wait()
    watch.wait_for_end(owner.pid)
