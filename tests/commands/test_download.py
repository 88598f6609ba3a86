import hashlib
import http.server
import os
import threading

import pytest

from gpt_numpy.commands import download, main
from gpt_numpy.commands.download import CATALOGUE, File, fetch
from gpt_numpy.errors import DataError
from gpt_numpy.files.regular import sha256_of_file

CONTENT = os.urandom(300_000)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; ``breaks`` says after how many bytes each connection ends."""

    breaks, ranges, honours_ranges, content = [], [], True, CONTENT

    def do_GET(self):
        cls = type(self)
        if self.path == "/missing":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        cls.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and cls.honours_ranges else 0
        if start >= len(cls.content):
            self.send_error(416)
            return
        body = cls.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: cls.breaks.pop(0)] if cls.breaks else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def url():
    Server.breaks, Server.ranges, Server.honours_ranges, Server.content = [], [], True, CONTENT
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def pinned(url, content=CONTENT, size=None):
    return File(
        "file.bin", url + "/file.bin", len(CONTENT) if size is None else size, hashlib.sha256(content).hexdigest()
    )


def test_arrives_and_is_not_fetched_twice(url, tmp_path):
    path = fetch(pinned(url), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    fetch(pinned(url), tmp_path / "new")
    assert Server.ranges == [None] and os.listdir(tmp_path / "new") == ["file.bin"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_broken_connection_is_taken_up_where_it_broke(url, tmp_path, size):
    Server.breaks = [100_000, 50_000, 1]
    assert fetch(pinned(url, size=size), tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_what_came_stays_for_the_next_call(url, tmp_path):
    Server.breaks = [100_000]
    with pytest.raises(DataError, match="100,000 of 300,000"):
        fetch(pinned(url), tmp_path, attempts=1)
    assert os.listdir(tmp_path) == ["file.bin.part"]
    assert fetch(pinned(url), tmp_path).read_bytes() == CONTENT
    assert Server.ranges[1:] == ["bytes=100000-"]


def test_a_server_without_ranges_sends_all_of_it_again(url, tmp_path):
    Server.honours_ranges = False
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(pinned(url), tmp_path).read_bytes() == CONTENT


def test_a_whole_part_only_lacks_its_name(url, tmp_path):
    for size in (len(CONTENT), None):
        (tmp_path / "file.bin").unlink(missing_ok=True)
        (tmp_path / "file.bin.part").write_bytes(CONTENT)
        assert fetch(pinned(url, size=size), tmp_path).read_bytes() == CONTENT


def test_other_content_never_gets_the_name(url, tmp_path):
    Server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(DataError, match="not the pinned content"):
        fetch(pinned(url), tmp_path)
    assert os.listdir(tmp_path) == []
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="other content"):
        fetch(pinned(url), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"


def test_no_such_file_or_server(url, tmp_path):
    with pytest.raises(DataError, match="404"):
        fetch(File("x", url + "/missing", None, "0"), tmp_path)
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch(File("x", "http://127.0.0.1:9/", None, "0"), tmp_path)


def test_the_command(url, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(CATALOGUE, "gpt2", [pinned(url)])
    assert main(["download", "gpt2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "file.bin"), str(tmp_path / "config.json")]
    from gpt_numpy.config import GPTConfig
    from gpt_numpy.interop.huggingface import load_config

    assert load_config(tmp_path)[0] == GPTConfig.preset("gpt2")
    monkeypatch.setitem(CATALOGUE, "shakespeare", [File("x", url + "/missing", None, "0")])
    assert main(["download", "shakespeare", "--out", str(tmp_path)]) == 3


def test_everything_is_pinned():
    for files in CATALOGUE.values():
        for file in files:
            assert len(file.sha256) == 64 and int(file.sha256, 16) and file.url.startswith("https://")


def test_pins_are_those_of_the_test_data(test_data):
    for what in ("shakespeare", "gpt2-vocabulary"):
        for file, path in zip(CATALOGUE[what], test_data(what)):
            assert sha256_of_file(path) == file.sha256
            assert file.size in (None, path.stat().st_size)


@pytest.mark.parametrize("inner", ["", "gpt2-vocabulary", "gpt2"])
@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_what_was_downloaded_is_found_however_it_is_laid_out(inner, names, tmp_path):
    """`download … --out DIR`, without --out in data/NAME, and folders with OpenAI's names: all are test data."""
    with pytest.raises(DataError, match=r"vocab.json and merges.txt are not there.*gpt-numpy download gpt2-vocabulary"):
        download.find("gpt2-vocabulary", tmp_path)
    (tmp_path / inner).mkdir(exist_ok=True)
    for name in names:
        (tmp_path / inner / name).write_text("")
    assert download.find("gpt2-vocabulary", tmp_path) == [tmp_path / inner / name for name in names]
