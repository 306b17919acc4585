"""The access log's file when it cannot be written to, or not at once."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from services.gateway.http.access_log import PENDING, AccessLog, Entry, check_place
from shared.errors import ConfigError


def test_entries_wait_for_a_file_up_to_a_bound_and_what_is_lost_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, disk = tmp_path / "access.log", tmp_path / "disk"
    disk.symlink_to("/dev/full")
    access_log = AccessLog()
    access_log.use(str(disk))
    request = make_mocked_request("GET", "/")  # of which making ten thousand would take half a minute
    for number in range(PENDING + 3):
        access_log.write(request, Entry(f"r{number}", {}), 200)  # type: ignore[arg-type]
    access_log.flush()
    access_log.flush()
    assert [record.getMessage() for record in caplog.records] == ["the access log cannot be written to"]
    access_log.use(str(file))
    told = [record.__dict__["entries"] for record in caplog.records if "are lost" in record.getMessage()]
    assert told == [PENDING + 3]
    access_log.write(make_mocked_request("GET", "/"), Entry("last", {}), 200)  # type: ignore[arg-type]
    access_log.close()
    assert file.read_text().count("\n") == 1
    assert sum("are lost" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.timeout(20)
def test_a_pipe_that_nobody_reads_holds_nobody_up_and_loses_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    access_log = AccessLog()
    access_log.use(str(pipe))
    for number in range(100):
        access_log.write(make_mocked_request("GET", "/"), Entry(f"r{number}", {}), 200)  # type: ignore[arg-type]
    access_log.flush()
    access_log.flush()
    got = b""
    while piece := _read(reader):
        got += piece
        access_log.flush()
    access_log.close()
    os.close(reader)
    assert [json.loads(line)["request"] for line in got.splitlines()] == [f"r{number}" for number in range(100)]


def test_a_pipe_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"access_log: .*pipe cannot be written"):
        check_place(str(pipe))


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65_536)
    except BlockingIOError:
        return b""
