"""Files that are no traces get a word about what is wrong and where."""

import gzip
from pathlib import Path

import pytest

from simulator.workload.arrival import Arrival
from simulator.workload.files import TraceError
from simulator.workload.reading import read_trace, write_trace


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("hello\n", "no trace that is known"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374\n", "line 2: three fields"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,374,4\n", "line 2: 'yesterday' is no date"),
        ('{"at": 0, "input_tokens": 0, "output_tokens": 1}\n', "line 1: times are finite"),
        ('{"at": 0, "input_tokens": 5, "output_tokens": 1, "outputs": 3}\n', "unknown: outputs"),
        ('{"at": 0, "input_tokens": 5}\n', "output_tokens"),
        ('{"at": 0, "input_tokens": 5, "output_tokens": 1}\n[]\n', "line 2: an object is wanted"),
        ('{"at": 0, "input_tokens": 5, "output_tokens": 1}\n{\n', "line 2: no JSON"),
        (
            '{"at": 9, "input_tokens": 5, "output_tokens": 1}\n{"at": 8, "input_tokens": 5, "output_tokens": 1}\n',
            "sort it",
        ),
        ('{"at": NaN, "input_tokens": 5, "output_tokens": 1}\n', "times are finite"),
        ('{"timestamp": 0, "hash_ids": [1]}\n', "input_length"),
        ('{"timestamp": 0, "input_length": 5000, "output_length": 1, "hash_ids": [1]}\n', "one id for each 512"),
        ('{"timestamp": 0, "input_length": 500, "output_length": 1, "hash_ids": "1"}\n', "one id for each 512"),
        ('{"at": 0, "input_tokens": Infinity, "output_tokens": 1}\n', "no whole number"),
        ('{"at": 0, "input_tokens": 10.5, "output_tokens": 1}\n', "no whole number"),
        ('{"at": 0, "input_tokens": 10, "output_tokens": -3}\n', "times are finite"),
        ('{"at": 0, "input_tokens": true, "output_tokens": 3}\n', "no number"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(TraceError, match=says):
        list(read_trace(path))


def test_packed_files_times_with_a_zone_and_marks_of_byte_order_are_read(tmp_path: Path) -> None:
    text = "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\n"
    text += "".join(f"2024-05-10 00:00:0{at}.009930+00:00,37{at},4\n" for at in range(3))
    path = tmp_path / "packed.csv"
    path.write_bytes(gzip.compress(text.encode()))
    assert [(one.at, one.input_tokens) for one in read_trace(path)] == [(0.0, 370), (1.0, 371), (2.0, 372)]
    path.write_bytes(gzip.compress(text.encode())[:60] + b"damaged" * 9)
    with pytest.raises(TraceError, match="cannot be read"):
        list(read_trace(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="does not exist"):
        list(read_trace(tmp_path / "none.csv"))
    with pytest.raises(TraceError, match="no folder of ServeGen"):
        list(read_trace(tmp_path))


def test_our_own_form_comes_back_as_it_was_written(tmp_path: Path) -> None:
    arrivals = [
        Arrival(0.0, 5, 1),
        Arrival(1.5, 900, 20, (1, 2), "code", "acme", 3),
        Arrival(2.0, 1, 1, (), "chat", "x"),
    ]
    path = tmp_path / "own.jsonl"
    assert write_trace(path, iter(arrivals)) == 3
    assert list(read_trace(path)) == arrivals


def test_times_count_from_the_first_request_on(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'{{"at": {at}, "input_tokens": 5, "output_tokens": 1}}\n' for at in (100.0, 101.5)))
    assert [one.at for one in read_trace(path)] == [0.0, 1.5]
