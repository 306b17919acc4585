"""The access log's file when it cannot be written to."""

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from services.gateway.http.access_log import PENDING, AccessLog, Entry


def test_entries_wait_for_a_file_up_to_a_bound_and_what_is_lost_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, disk = tmp_path / "access.log", tmp_path / "disk"
    disk.symlink_to("/dev/full")
    access_log = AccessLog()
    access_log.use(str(disk))
    for number in range(PENDING + 3):
        access_log.write(make_mocked_request("GET", "/"), Entry(f"r{number}", {}), 200)  # type: ignore[arg-type]
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
