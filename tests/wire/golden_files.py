"""Reads and writes the golden bytes: one file a tag, one line of hex a sample, in the order of the samples.

`python -m tests.wire.golden_files` adds the lines of new samples. It never changes a line: bytes that were once sent
must be read for ever.
"""

from pathlib import Path

from shared.messages import encode
from tests.wire.samples import SAMPLES

FOLDER = Path(__file__).parent / "golden"


def golden(tag: str) -> list[bytes]:
    """The bytes of a tag's samples."""
    return [bytes.fromhex(line) for line in (FOLDER / f"{tag}.hex").read_text().split()]


def main() -> None:
    """Append what is missing."""
    for tag, samples in SAMPLES.items():
        path = FOLDER / f"{tag}.hex"
        lines = path.read_text().split() if path.exists() else []
        lines += [encode(sample).hex() for sample in samples[len(lines) :]]
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
