"""Numbers of rows for which a decoding step is captured."""

import pytest

from shared.engine.torch_engine.cuda.graphs import sizes


@pytest.mark.parametrize("sequences", [1, 2, 3, 8, 9, 16, 64, 65, 256, 1000, 4096])
def test_every_batch_finds_a_graph_that_is_little_larger(sequences: int) -> None:
    found = sizes(sequences)
    assert found == sorted(set(found))
    assert found[-1] == sequences
    for rows in range(1, sequences + 1):
        size = next(size for size in found if size >= rows)
        assert size - rows < max(8, size / 8 + 1)


def test_there_are_few_of_them() -> None:
    assert sizes(64) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]
    assert len(sizes(1024)) < 50
