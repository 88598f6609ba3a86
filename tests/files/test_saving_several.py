"""Fail the n-th call that touches the disk, for every n, until a save gets through."""

import os

import pytest

from gpt_numpy.files.durable import write_files
from gpt_numpy.tokenizer import Tokenizer

FILES = {"one": b"new one", "two": b"new two", "three": b"new three"}


def test_writes_into_a_new_folder(tmp_path):
    write_files(tmp_path / "a" / "b", FILES)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a" / "b").iterdir()} == FILES


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_call_leaves_whole_files_only(tmp_path, monkeypatch, call):
    real, failures = getattr(os, call), 0
    while True:
        for name in FILES:
            (tmp_path / name).write_bytes(b"old " + name.encode())
        calls = 0

        def failing(*args):
            nonlocal calls
            calls += 1
            if calls > failures:
                raise OSError(28, "No space left on device")
            return real(*args)

        monkeypatch.setattr(os, call, failing)
        try:
            write_files(tmp_path, FILES)
            break
        except OSError:
            failures += 1
        assert set(os.listdir(tmp_path)) == set(FILES)
        for name, new in FILES.items():
            assert (tmp_path / name).read_bytes() in (new, b"old " + name.encode())
        if call == "fsync" and failures <= len(FILES):
            assert (tmp_path / "one").read_bytes() == b"old one"
    assert failures >= len(FILES)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES


def test_saving_over_another_tokenizer(tmp_path):
    Tokenizer.train("some text", 258).save(tmp_path)
    other = Tokenizer.train("another text", 260)
    other.save(tmp_path)
    assert Tokenizer.load(tmp_path).vocabulary == other.vocabulary
