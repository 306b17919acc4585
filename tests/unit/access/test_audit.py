"""The audit log's file: who may read it, also after it was rotated."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.tenancy import audit


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_open_umask")
def test_the_file_is_its_owners_alone_before_and_after_it_is_rotated(tmp_path: Path) -> None:
    path, lines = tmp_path / "audit.jsonl", audit.Lines()
    lines.open_file(str(path), instance="gateway-1")
    try:
        audit.note("key.created", key="a")
        path.rename(tmp_path / "audit.1")
        audit.note("key.revoked", key="a")
    finally:
        lines.close()
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["key.revoked"]
    assert [file.stat().st_mode & 0o777 for file in (path, tmp_path / "audit.1")] == [0o600, 0o600]


def test_a_file_that_cannot_be_written_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.audit_file"):
        audit.Lines().open_file(str(tmp_path / "nowhere" / "audit"))


def test_what_strangers_cause_is_bounded_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    strangers = audit.Strangers()
    with caplog.at_level("INFO", "baton.audit"):
        for _ in range(25):
            strangers.note("nobody's")
        strangers._second -= 1  # as a second later
        strangers.note("nobody's")
    assert 11 <= len(caplog.records) <= 21
    assert sum(record.__dict__.get("unlogged", 0) for record in caplog.records) + len(caplog.records) == 26
