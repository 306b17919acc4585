"""Where traces lie, and how their files are opened: plain or packed, line by line."""

import gzip
import os
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Final

BESIDE: Final = Path(__file__).parents[3] / "shared" / "traces"
"""Where a checkout's neighbours keep them."""
MOST_LINE: Final = 1 << 20
"""Characters of one line."""


class TraceError(ValueError):
    """A trace that cannot be read; says where, and what to do."""


def traces_folder() -> Path | None:
    """The folder named by BATON_TRACES, else the one beside the checkout; None where there is none."""
    folder = Path(os.environ.get("BATON_TRACES") or BESIDE)
    return folder if folder.is_dir() else None


def packed(path: Path) -> Path:
    """The file itself, or the same with .gz; raises TraceError where there is neither."""
    for one in (path, path.with_name(path.name + ".gz")):
        if one.is_file():
            return one
    raise TraceError(f"{path} does not exist, nor {path.name}.gz")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not empty, from 1. Packed files are known by their first bytes."""
    found = packed(path)
    number = 0
    try:
        with found.open("rb") as raw:
            is_packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with TextIOWrapper(gzip.GzipFile(fileobj=raw) if is_packed else raw, encoding="utf-8-sig") as file:
                while line := file.readline(MOST_LINE + 1):
                    number += 1
                    if len(line) > MOST_LINE:
                        raise TraceError(f"{found}, line {number}: longer than {MOST_LINE} characters; is it a trace?")
                    if line.strip():
                        yield number, line.strip()
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise TraceError(f"{found} cannot be read: {error}") from error
