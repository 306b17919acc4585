"""Child processes end when told, when their leader ends, and when their parent is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from services.local.children import Child, Command, stop
from tests.processes import alive
from tests.waiting import until

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
LEADER = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
"""
PARENT = """
import asyncio, sys
from pathlib import Path
from services.local.children import Child, Command
async def main():
    child = Child(Command("c", [sys.executable, "-c", "import time; time.sleep(600)"], {}, None, Path("/")))
    print(child.pid, flush=True)
    await child.ended()
asyncio.run(main())
"""


def _command(code: str, tmp_path: Path) -> Command:
    return Command("child", [sys.executable, "-c", code], dict(os.environ), tmp_path / "log", tmp_path)


async def _said(child: Child, word: str = "up") -> None:
    await until(lambda: word in child.last_words(), f"the child says {word!r}")


async def test_a_child_that_is_told_to_stop_ends_by_that_signal(tmp_path: Path) -> None:
    ended: list[Child] = []
    child = Child(_command(SLEEPER, tmp_path), ended.append)
    await _said(child)
    assert await stop([child], grace_s=20) == []
    assert (child.status, child.how(), ended) == (-signal.SIGTERM, "was killed by SIGTERM", [child])


async def test_a_child_that_does_not_listen_is_killed_and_named(tmp_path: Path) -> None:
    child = Child(_command(DEAF, tmp_path))
    await _said(child)
    assert await stop([child], grace_s=0.1) == ["child"]
    assert child.status == -signal.SIGKILL


async def test_stopping_a_child_that_has_ended_does_nothing(tmp_path: Path) -> None:
    child = Child(_command("import sys; print('bad luck'); sys.exit(3)", tmp_path))
    assert await child.ended() == 3
    assert await stop([child], grace_s=0.1) == []
    child.kill()
    assert (child.how(), child.last_words()) == ("ended with status 3", "bad luck")


async def test_the_processes_a_child_leaves_behind_end_with_it(tmp_path: Path) -> None:
    child = Child(_command(LEADER, tmp_path))
    assert await child.ended() == 0
    left = int(child.last_words())
    await until(lambda: not alive(left), "the grandchild is gone")


async def test_the_log_is_private_and_its_end_is_what_last_words_returns(tmp_path: Path) -> None:
    child = Child(_command("for i in range(9000): print('line', i)", tmp_path))
    await child.ended()
    assert child.last_words(2) == "line 8998\nline 8999"
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


async def test_a_child_does_not_outlive_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220  starting it is what is tested
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
        parent.wait()
    await until(lambda: not alive(child), "the child is gone")
