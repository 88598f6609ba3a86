"""Token files of llm.c and nanoGPT, our header, and several files as one array."""

import os

import numpy as np
import pytest

from gpt_numpy.data.rows.windows import batch, epoch_batch, validation_windows
from gpt_numpy.data.shards.token_files import (
    HEADER_BYTES,
    JoinedTokens,
    ShardHeader,
    format_header,
    join_token_files,
    read_header,
    read_token_file,
)
from gpt_numpy.errors import DataError

TOKENS = np.arange(1000) * 7 % 997


def llm_c_bytes(tokens, dtype="<u2", magic=20240520, version=1):
    """Laid out by hand, as llm.c's writer does: 256 int32, then the tokens."""
    words = [magic, version, len(tokens)] + [0] * 253
    return b"".join(word.to_bytes(4, "little") for word in words) + np.asarray(tokens, dtype).tobytes()


def test_llm_c_files_are_read_as_they_are(tmp_path):
    (tmp_path / "gpt2.bin").write_bytes(llm_c_bytes(TOKENS))
    tokens = read_token_file(tmp_path / "gpt2.bin", 50257)
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == TOKENS.tolist()
    (tmp_path / "llama3.bin").write_bytes(llm_c_bytes(TOKENS + 100_000, "<u4", 20240801, 7))
    tokens = read_token_file(tmp_path / "llama3.bin", 128256)
    assert tokens.dtype == np.uint32
    assert tokens.tolist() == (TOKENS + 100_000).tolist()


def test_nanogpt_files_are_read_as_they_are(tmp_path):
    TOKENS.astype("<u2").tofile(tmp_path / "train.bin")
    assert read_token_file(tmp_path / "train.bin", 997).tolist() == TOKENS.tolist()
    (TOKENS + 70_000).astype("<u4").tofile(tmp_path / "wide.bin")
    assert read_token_file(tmp_path / "wide.bin", 71_000, np.uint32).tolist() == (TOKENS + 70_000).tolist()
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "header.bin").write_bytes(llm_c_bytes(TOKENS[:0], "<u2", 20240520, 1))
    for name in ("empty.bin", "header.bin"):
        with pytest.raises(DataError, match=f"{name}: the file has no tokens"):
            read_token_file(tmp_path / name, 997)
        with pytest.raises(DataError, match=f"{name}: the file has no tokens"):
            join_token_files([tmp_path / "train.bin", tmp_path / name], 997)
    (tmp_path / "link.bin").symlink_to("train.bin")
    assert read_token_file(tmp_path / "link.bin", 997).tolist() == TOKENS.tolist()


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_our_header_is_llm_cs(tmp_path, dtype):
    header = ShardHeader(np.dtype(dtype), 1000, 5, 50257, 50256, 65)
    content = format_header(header) + TOKENS.astype(dtype).tobytes()
    (tmp_path / "shard.bin").write_bytes(content)
    assert read_header(tmp_path / "shard.bin") == header
    expected = llm_c_bytes(TOKENS, dtype, *((20240520, 1) if dtype == "<u2" else (20240801, 7)))
    assert content[:12] == expected[:12]
    assert content[28:] == expected[28:]


@pytest.mark.parametrize(
    "content, message",
    [
        (llm_c_bytes(TOKENS)[:-1], "promises 1000 tokens"),
        (llm_c_bytes(TOKENS) + b"\0\0", "promises 1000 tokens"),
        (llm_c_bytes(TOKENS)[:1000], "header is cut short"),
        (llm_c_bytes(TOKENS, version=2), "version"),
        (llm_c_bytes(TOKENS)[:8] + b"\xff\xff\xff\xff" + llm_c_bytes(TOKENS)[12:], "promises -1"),
        (llm_c_bytes([*TOKENS, 997]), "position 1000 .*997"),
        (np.array([1, 2, 65535], "<u2").tobytes(), "position 2 .*65535"),
        (b"abc", "not whole uint16 tokens"),
    ],
)
def test_damaged_token_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_token_file(tmp_path / "a.bin", 997)


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device"])
def test_only_regular_files_are_mapped(tmp_path, kind):
    path = tmp_path / "a.bin"
    TOKENS.astype("<u2").tofile(tmp_path / "b.bin")
    {
        "missing": lambda: None,
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(DataError, match="a.bin"):
        read_token_file(path, 997)


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [10, 0, 490, 3, 497], [100] * 10])
def test_joined_arrays_are_read_like_one(sizes):
    joined = JoinedTokens(np.split(TOKENS.astype(np.uint16), np.cumsum(sizes)[:-1]))
    assert len(joined) == 1000
    starts = np.array([0, 1, 5, 99, 100, 486, 500, 983])
    np.testing.assert_array_equal(joined.windows(starts, 17), TOKENS[starts[:, None] + np.arange(17)])
    for places in (slice(None), slice(9, 12), slice(-3, None), slice(500, 400), slice(999, 2000), slice(1000, None)):
        np.testing.assert_array_equal(joined[places], TOKENS[places])
    for draw in (batch, epoch_batch):
        for one, other in zip(draw(joined, 4, 16, 0, 3), draw(TOKENS, 4, 16, 0, 3), strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(validation_windows(joined, 16), validation_windows(TOKENS, 16), strict=True):
        np.testing.assert_array_equal(one, other)


def test_reading_past_the_end_is_an_error():
    joined = JoinedTokens([TOKENS[:10], TOKENS[10:20]])
    with pytest.raises(IndexError):
        joined.windows([10], 11)
    with pytest.raises(IndexError):
        joined[::2]


def test_files_are_joined_in_the_order_given(tmp_path):
    (tmp_path / "a.bin").write_bytes(llm_c_bytes([1, 2, 3]))
    np.array([4, 5], "<u2").tofile(tmp_path / "b.bin")
    assert join_token_files([tmp_path / "b.bin", tmp_path / "a.bin"], 10)[:].tolist() == [4, 5, 1, 2, 3]
    assert HEADER_BYTES == 1024
