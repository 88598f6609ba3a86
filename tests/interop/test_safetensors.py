import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpt_numpy.errors import CheckpointCorrupt, CheckpointMismatch
from gpt_numpy.interop.safetensors import SafetensorsFile, bfloat16_to_float32, float32_to_bfloat16


def write(path, header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(raw) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + raw + data)
    return path


def entry(dtype="F32", shape=(2,), start=0, stop=8, **extra):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop], **extra}


def test_reads_what_the_library_writes(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {"a": rng.standard_normal((3, 5)), "b": rng.standard_normal(7).astype("f4"), "empty": np.zeros((0, 4))}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"note": "hello"})
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        assert file.metadata == {"note": "hello"}
        assert {name: tensor.shape for name, tensor in file.tensors.items()} == {k: v.shape for k, v in tensors.items()}
        for name, expected in tensors.items():
            out = np.full(expected.shape, 9.0, expected.dtype)
            file.read_into(name, out)
            assert np.array_equal(out, expected)
            out = np.full(expected.shape, 9.0, expected.dtype)
            file.read_exactly(name, out)
            assert np.array_equal(out, expected)
        with pytest.raises(CheckpointMismatch, match="b: another type: found 'F32'"):
            file.read_exactly("b", np.empty(7))


def test_bfloat16_rounds_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.0e38, 0.0, -0.0], np.float32)
    widened = bfloat16_to_float32(float32_to_bfloat16(values))
    assert widened[:4].tolist() == [1.0, 1.0, 1 + 2**-6, 1 + 2**-7]
    assert np.all(np.abs(widened - values) <= np.abs(values) * 2**-8)
    assert np.signbit(widened[6])


@pytest.mark.parametrize(
    "header, data, length, message",
    [
        (b"", b"", 0, "header length"),
        (b"{}", b"", 1, "header length"),
        (b"{}", b"", 3, "header length"),
        (b"{}", b"", 2**64 - 1, "header length"),
        (b"{]", b"", None, "not JSON"),
        (b"\xff\xfe", b"", None, "not JSON"),
        (b"[]", b"", None, "not a JSON object"),
        (b"[" * 100_000, b"", None, "not JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", b"", None, "not JSON"),
        (b'{"a": {}, "a": {}}', b"", None, "a: appears twice"),
        ({"a": []}, b"", None, "a: malformed"),
        ({"a": {"dtype": "F32"}}, b"", None, "a: malformed"),
        ({"a": entry(extra=1)}, b"", None, "a: malformed"),
        ({"a": entry("F31")}, bytes(8), None, "a: unknown dtype: found 'F31'"),
        ({"a": entry(shape=(-2,))}, bytes(8), None, "a: not a shape"),
        ({"a": entry(shape=(2.0,))}, bytes(8), None, "a: not a shape"),
        ({"a": entry(shape=(True, 2))}, bytes(8), None, "a: not a shape"),
        ({"a": entry(shape=(1,) * 40)}, bytes(8), None, "a: not a shape"),
        ({"a": entry(shape=(2**62, 2**62))}, bytes(8), None, "a: data_offsets do not fit"),
        ({"a": entry(shape=(2**61 + 2,))}, bytes(8), None, "a: data_offsets do not fit"),
        ({"a": entry(start=-8, stop=0)}, bytes(8), None, "a: not a pair of offsets"),
        ({"a": entry(start=8, stop=0)}, bytes(8), None, "a: data_offsets do not fit"),
        ({"a": entry(), "b": entry(start=4, stop=12)}, bytes(12), None, "b: overlaps"),
        ({"a": entry(), "b": entry(start=12, stop=20)}, bytes(20), None, "b: leaves a hole"),
        ({"a": entry(start=8, stop=16)}, bytes(16), None, "a: leaves a hole"),
        ({"a": entry()}, bytes(7), None, "truncated"),
        ({"a": entry()}, bytes(9), None, "bytes after the last tensor"),
        ({"__metadata__": {"a": 1}}, b"", None, "__metadata__: not a mapping"),
        ({"__metadata__": []}, b"", None, "__metadata__: not a mapping"),
    ],
)
def test_every_fault_of_a_header_is_named(tmp_path, header, data, length, message):
    path = write(tmp_path / "bad.safetensors", header, data, length)
    with pytest.raises(CheckpointCorrupt, match=message) as caught:
        SafetensorsFile(path)
    assert "bad.safetensors" in str(caught.value)


def test_truncation_at_every_byte(tmp_path):
    save_file({"a": np.arange(3, dtype="f4"), "b": np.ones((2, 2))}, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(CheckpointCorrupt):
            SafetensorsFile(tmp_path / "cut.safetensors")


def test_file_that_shrinks_after_it_was_opened(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.arange(3000, dtype="f4")}, path)
    with SafetensorsFile(path) as file:
        with open(path, "r+b") as other:
            other.truncate(5000)
        with pytest.raises(CheckpointCorrupt, match="ends inside"):
            file.read_into("a", np.empty(3000, "f4"))


def mutated(raw, rng):
    """``raw`` with one to four random edits of its first 300 bytes: flips, deletions, repeats, digits, swaps."""
    raw = bytearray(raw)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(min(len(raw), 300)))
        kind = rng.integers(5)
        if kind == 0:
            raw[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del raw[at : at + int(rng.integers(1, 6))]
        elif kind == 2:
            raw[at:at] = raw[at : at + int(rng.integers(1, 20))]
        elif kind == 3:
            raw[at] = int(rng.choice(list(b'0123456789-,[]{}":.eE')))
        else:
            raw[:8] = int(rng.integers(0, 400)).to_bytes(8, "little")
        if not raw:
            break
    return bytes(raw)


def attack(tmp_path, count, seed):
    tensors = {"wte": np.ones((4, 3), "f4"), "half": np.ones(6, "f2"), "i": np.arange(5)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(count):
        path.write_bytes(mutated(whole, rng))
        try:
            with SafetensorsFile(path) as file:
                for name, tensor in file.tensors.items():
                    if len(tensor.shape) <= 32 and np.prod(tensor.shape, dtype=float) < 1e6:
                        file.read_into(name, np.empty(tensor.shape, "f4"))
        except (CheckpointCorrupt, CheckpointMismatch):  # anything else would fail the test
            refused += 1
    return refused


def test_mutated_headers_end_in_our_errors_only(tmp_path):
    assert attack(tmp_path, 3000, seed=1) > 1500


@pytest.mark.campaign
def test_mutated_headers_long(tmp_path):
    assert attack(tmp_path, 20_000, seed=2) > 10_000


def test_a_view_is_the_file_where_it_holds_float32(tmp_path):
    path = tmp_path / "model.safetensors"
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 5)).astype(np.float32), rng.standard_normal(7).astype(np.float16)
    save_file({"a": a, "b": b, "empty": np.empty((0, 2), np.float32)}, path)
    before = path.read_bytes()
    with SafetensorsFile(path) as file:
        views = {name: file.view(name) for name in file.tensors}
    assert np.array_equal(views["a"], a) and np.array_equal(views["b"], b) and views["empty"].shape == (0, 2)
    assert all(view.dtype == np.float32 for view in views.values())
    views["a"][...] = 0  # the views outlive the file object, and are nobody's but ours
    assert path.read_bytes() == before


def test_a_view_of_what_is_no_number_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    a = np.zeros((3, 5), np.float32)
    a[1, 4] = np.inf
    save_file({"a": a}, path)
    with SafetensorsFile(path) as file, pytest.raises(CheckpointMismatch, match=r"a\[1, 4\].*inf"):
        file.view("a")
