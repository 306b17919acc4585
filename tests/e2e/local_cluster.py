"""One `baton up` in a state directory of its own, for tests: started, asked, killed, and looked for afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.processes import alive

START_S = 90.0


class LocalCluster:
    """`baton up --engine sim` on free ports."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.environ = {name: text for name, text in os.environ.items() if not name.startswith(("BATON_", "OTEL_"))}
        self.environ["BATON_STATE_DIR"] = str(folder / "state")
        self._output = folder / "output"
        self._argv = [*command("up"), "--engine", "sim", "--port", "0", "--dashboard-port", "0", *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of `baton up`."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """From the ready line."""
        lines = [line for line in self.output.splitlines() if line.startswith("baton ready ")]
        assert len(lines) == 1, self.output
        return lines[0].removeprefix("baton ready ")

    def launch(self) -> "LocalCluster":
        """Start without waiting for anything."""
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(self._argv, env=self.environ, stdout=file, stderr=subprocess.STDOUT)
        return self

    def start(self) -> "LocalCluster":
        """Start and wait for the ready line."""
        self.launch().until(lambda: "baton ready " in self.output, "it is ready", START_S)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to `baton up` itself."""
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self, seconds: float = 60.0) -> int:
        """Wait for its end; the exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def close(self) -> None:
        """End it, whatever state it is in; idempotent."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Wait for a condition; fail at once when `baton up` ends instead."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while not condition():
            running = self._process.poll() is None
            if not running or time.monotonic() > deadline:
                ending = f"it did not happen that {what}" if running else f"`baton up` ended instead of: {what}"
                raise AssertionError(f"{ending}\n{self.output}\n{self._logs()}")
            time.sleep(0.05)

    def baton(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command beside it."""
        return subprocess.run(command(*arguments), env=self.environ, capture_output=True, text=True, check=False)

    def status(self) -> dict[str, Any]:
        """What `baton status --json` prints."""
        done = self.baton("status", "--json")
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def instances(self, role: str, state: str = "ready") -> list[dict[str, Any]]:
        """Those of one role and state."""
        return [one for one in self.status()["instances"] if (one["role"], one["state"]) == (role, state)]

    def processes(self) -> list[int]:
        """Ids of all its descendants."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def chat(self, content: str, max_tokens: int = 8) -> dict[str, Any]:
        """One answer over HTTP."""
        turns = [{"role": "user", "content": content}]
        body = {"model": "chat", "max_tokens": max_tokens, "seed": 7, "messages": turns}
        request = urllib.request.Request(  # noqa: S310  our own loopback
            f"{self.url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            reply: dict[str, Any] = json.load(answer)
        return reply

    def _logs(self) -> str:
        logs = sorted((self.folder / "state" / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


def command(*arguments: str) -> list[str]:
    """Build a `baton` command line for this interpreter."""
    return [sys.executable, "-m", "services.cli", *arguments]


def gone(pids: list[int]) -> bool:
    """Whether all of these have ended."""
    return not any(map(alive, pids))
