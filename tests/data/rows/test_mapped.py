import sys
from pathlib import Path

import numpy as np
import pytest

from gpt_numpy.data.rows.mapped import release
from gpt_numpy.data.shards.token_files import JoinedTokens, map_tokens


def resident(path):
    """Bytes of ``path`` that this process holds in memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            inside = line.rstrip().endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/smaps")
def test_pages_that_were_read_are_let_go_and_can_be_read_again(tmp_path):
    path = tmp_path / "tokens.bin"
    expected = np.arange(1 << 20, dtype=np.uint16)
    expected.tofile(path)
    joined = JoinedTokens([map_tokens(path, expected.dtype, 0)])
    total = int(joined[:].sum(dtype=np.int64))
    assert resident(path) > 1 << 20
    release(joined)
    assert resident(path) == 0
    assert int(joined[:].sum(dtype=np.int64)) == total == int(expected.sum(dtype=np.int64))
    release(joined.arrays[0][5:])
    assert resident(path) == 0


def test_an_array_in_memory_is_left_alone():
    array = np.arange(5)
    release(array)
    assert array.tolist() == [0, 1, 2, 3, 4]
