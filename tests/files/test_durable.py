import os

import pytest

from gpt_numpy.files import durable
from tests.training.faults import EIO, ENOSPC, die, fail, fault_at, in_child


@pytest.mark.parametrize("code", [ENOSPC, EIO])
def test_a_file_is_the_old_or_the_new_one(tmp_path, code):
    path, number = tmp_path / "file", 0
    while True:
        number += 1
        path.write_bytes(b"old")
        try:
            with fault_at(number, fail(code)) as count:
                durable.write_file(path, b"new content")
        except OSError as error:
            assert error.errno == code
        assert path.read_bytes() in (b"old", b"new content")
        assert os.listdir(tmp_path) == ["file"]
        if count[0] < number:
            break
    assert path.read_bytes() == b"new content" and number >= 6


def test_a_kill_leaves_the_old_or_the_new_one(tmp_path):
    path, number, code = tmp_path / "file", 0, 1

    def child():
        with fault_at(number, die):
            durable.write_file(path, b"new content")

    while code:
        number += 1
        path.write_bytes(b"old")
        code = in_child(child)
        assert path.read_bytes() in (b"old", b"new content")
    assert path.read_bytes() == b"new content"


def test_a_failed_append_leaves_no_half_line(tmp_path):
    path = tmp_path / "log"
    durable.append(path, b"one\n", 0)
    with pytest.raises(OSError), fault_at(2, fail(ENOSPC)):
        durable.append(path, b"two is longer\n", 4)
    assert path.read_bytes() == b"one\n"
    durable.append(path, b"two\n", 4)
    assert path.read_bytes() == b"one\ntwo\n"


def test_pieces_are_written_whole_even_where_the_system_takes_little_at_a_time(tmp_path, monkeypatch):
    plain = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, piece: plain(descriptor, piece[:3]))
    durable.write_new(tmp_path / "file", [b"header", b"", memoryview(bytes(range(50)))])
    assert (tmp_path / "file").read_bytes() == b"header" + bytes(range(50))
    with pytest.raises(FileExistsError):
        durable.write_new(tmp_path / "file", [b"again"])


@pytest.mark.parametrize("name", ["replace", "rename"])
def test_a_rename_that_is_refused_for_a_moment_is_tried_again(tmp_path, monkeypatch, name):
    plain, calls = getattr(os, name), []

    def busy(source, target):
        calls.append(source)
        if len(calls) < 3:
            raise PermissionError(13, "The process cannot access the file")
        plain(source, target)

    monkeypatch.setattr(os, name, busy)
    monkeypatch.setattr(durable, "RENAME_WAITS", (0.0, 0.0))
    (tmp_path / "a").write_bytes(b"a")
    getattr(durable, name)(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"a" and len(calls) == 3
    calls.clear()
    monkeypatch.setattr(durable, "RENAME_WAITS", (0.0,))
    with pytest.raises(PermissionError):
        getattr(durable, name)(tmp_path / "b", tmp_path / "c")


def test_a_folder_that_cannot_be_opened_or_flushed_is_passed_over(tmp_path, monkeypatch):
    plain = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: _refuse_folders(plain, path, *rest, **named))
    durable.write_file(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def _refuse_folders(plain, path, *rest, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied")
    return plain(path, *rest, **named)


def test_a_library_s_file_has_the_permissions_of_any_new_file(tmp_path):
    def write(path):
        path.write_bytes(b"content")
        os.chmod(path, 0o600)

    durable.replace_files(tmp_path, {"theirs": write})
    durable.write_file(tmp_path / "ours", b"content")
    assert (tmp_path / "theirs").stat().st_mode == (tmp_path / "ours").stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["ours", "theirs"]
