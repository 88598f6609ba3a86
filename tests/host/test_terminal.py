"""What commands write: control characters, encodings, widths, and an output that goes away."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.commands import score as score_command
from gpt_numpy.host import terminal
from gpt_numpy.tokenizer import CharTokenizer, Tokenizer

ROOT = Path(__file__).parents[2]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux: bash, /dev/full and a pty")
ESCAPE = "\x1b]0;hi\x07"  # renames the window
TRAIN = (
    "train --data text.txt --ops layers --tokenizer char --block-size 8 --n-layer 1 --n-head 1 --n-embd 8 "
    "--batch-size 2 --max-steps 12 --eval-every 6 --sample-every 6 --sample-tokens 4 --save-every 6 --out run"
).split()


@pytest.fixture
def folder(tmp_path):
    """A folder with a text, and in ``model`` a model whose vocabulary holds ESC and BEL."""
    (tmp_path / "text.txt").write_text("a text of words, é and ü; " * 40, encoding="utf-8")
    tokenizer = CharTokenizer.train([ESCAPE + "abc é"])
    model = GPT(GPTConfig(tokenizer.n_vocab, block_size=32, n_layer=1, n_head=1, n_embd=8), ops=layers)
    model.save(tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    return tmp_path


def _environment(**variables):
    return dict(os.environ, PYTHONPATH=str(ROOT), MPLBACKEND="agg", **variables)


def _run(folder, *arguments, shell=None, **variables):
    command = [sys.executable, "-m", "gpt_numpy", *map(str, arguments)]
    if shell:
        command = ["bash", "-c", shell.format(" ".join(map(str, command)))]
    return subprocess.run(command, cwd=folder, env=_environment(**variables), capture_output=True)


def _on_a_terminal(folder, *arguments, **variables):
    """``(what a terminal received, exit code)`` of a command."""
    import fcntl
    import pty
    import struct
    import termios

    command = [sys.executable, "-m", "gpt_numpy", *map(str, arguments)]
    pid, descriptor = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
        os.chdir(folder)
        os.execvpe(command[0], command, _environment(**variables))
    received = b""
    while True:
        try:
            piece = os.read(descriptor, 1 << 16)
        except OSError:  # the other end is closed
            piece = b""
        if not piece:
            break
        received += piece
    os.close(descriptor)
    return received.decode("utf-8"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- control characters -----------------------------------------------------------------------------------------


def test_control_characters_are_escaped_and_no_others():
    plain = "a text\twith é, 文, 👩\u200d👧 and\nlines"
    assert terminal.printable(plain) == plain
    assert terminal.printable("\x1b[2J\x07\r\x00\x7f\x9b") == r"\x1b[2J\x07\r\x00\x7f\x9b"
    assert terminal.printable("abc\u202edcba") == r"abc\u202edcba"
    for code in (*range(32), *range(0x7F, 0xA0)):
        shown = terminal.printable(chr(code))
        assert shown.isprintable() or code in (9, 10)


def test_output_escapes_and_leaves_a_way_for_colours():
    stream = io.StringIO()
    output = terminal.Output(stream, escapes=True)
    print("\x1b[1mloud", file=output)
    print("\x1b[1m", end="", file=terminal.unescaped(output))
    assert stream.getvalue() == "\\x1b[1mloud\n\x1b[1m"
    assert terminal.unescaped(output) == output == stream
    assert terminal.unescaped(stream) is stream


@on_linux
def test_what_a_model_a_file_or_a_path_says_is_escaped_on_a_terminal_and_raw_in_a_pipe(folder):
    tokenizer = CharTokenizer.load(folder / "model")
    ids = tokenizer.encode(ESCAPE)
    commands = {
        ("tokenizer", "decode", "--tokenizer", "model", *ids): True,
        ("generate", "--model", "model", "--prompt", ESCAPE, "--max-new-tokens", 5, "--no-figures"): True,
        ("score", ESCAPE, "--model", "model", "--colour", "always"): True,
        ("data", "inspect", "no" + ESCAPE): None,  # an error may name the path as it is or as Python would write it
    }
    for command, raw in commands.items():
        shown, _ = _on_a_terminal(folder, *command)
        assert "\x07" not in shown and "\x1b]" not in shown, command
        if command[0] != "score":  # which shows every character by itself
            assert r"\x1b]0;hi\x07" in shown, command
        if raw:
            piped = _run(folder, *command).stdout
            assert b"\x07" in piped and b"\x1b" in piped, command


@on_linux
def test_a_progress_bar_is_drawn_on_a_terminal_but_not_on_a_dumb_one(folder):
    shown, code = _on_a_terminal(folder, *TRAIN, TERM="xterm")
    assert code == 0 and "12/12" in shown and "\r" in shown.replace("\r\n", "")
    assert r"\r" not in shown and r"\x1b" not in shown, "the bar's own control characters were escaped"
    (folder / "run").rename(folder / "first")
    shown, code = _on_a_terminal(folder, *TRAIN, TERM="dumb")
    assert code == 0 and "step 12/12" in shown and "\r" not in shown.replace("\r\n", "")


def test_no_bar_is_made_elsewhere():
    """tqdm's own bars write to ``sys.stderr``, which escapes what they draw with."""
    making = [
        path.relative_to(ROOT)
        for path in (ROOT / "gpt_numpy").rglob("*.py")
        if re.search(r"\btqdm\(", path.read_text(encoding="utf-8")) and path.name != "terminal.py"
    ]
    assert making == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only on systems with os.fork")
def test_a_process_that_is_killed_while_it_draws_stops_no_other_process():
    lock = type(terminal.bar()).get_lock()
    child = os.fork()
    if child == 0:
        lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    drawing = threading.Thread(target=lambda: terminal.bar(disable=False, total=1).close(), daemon=True)
    drawing.start()
    drawing.join(10)
    assert not drawing.is_alive(), "the bar waits for the process that was killed"


# ---- colours and widths ------------------------------------------------------------------------------------------


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    terminal_stream = types.SimpleNamespace(isatty=lambda: True)
    file = types.SimpleNamespace(isatty=lambda: False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.wants_colour("auto", terminal_stream) and not terminal.wants_colour("auto", file)
    assert terminal.wants_colour("always", file) and not terminal.wants_colour("never", terminal_stream)
    monkeypatch.setenv("NO_COLOR", "")  # no-color.org: when it is not an empty string
    assert terminal.wants_colour("auto", terminal_stream)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.wants_colour("auto", terminal_stream) and terminal.wants_colour("always", terminal_stream)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.wants_colour("auto", terminal_stream)


@pytest.mark.parametrize("columns,expected", [("1", 40), ("40", 40), ("120", 120), ("300", 300), ("9999", 300)])
def test_columns(monkeypatch, columns, expected):
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal.columns() == expected


def test_a_table_is_cut_to_the_terminal_but_not_in_a_file(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = "a" * 40 + "\n" + "b" * 41
    assert terminal.fitted(table, types.SimpleNamespace(isatty=lambda: False)) == table
    assert terminal.fitted(table, types.SimpleNamespace(isatty=lambda: True)) == "a" * 40 + "\n" + "b" * 39 + "…"


def test_characters_of_several_tokens_are_coloured_whole():
    tokenizer = Tokenizer.train("hello", 257)
    text = "aé文👩b"
    ids = tokenizer.encode(text)
    score = types.SimpleNamespace(tokens=_Array([0, *ids]), logprobs=[-1.0] * len(ids))
    coloured = score_command.coloured(score, tokenizer)
    assert "\ufffd" not in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == text
    assert list(score_command.whole_characters(score, tokenizer)) == [
        ("a", -1.0), ("é", -2.0), ("文", -3.0), ("👩", -4.0), ("b", -1.0),
    ]  # fmt: skip
    cut = types.SimpleNamespace(tokens=_Array([0, *ids[:2]]), logprobs=[-1.0] * 2)
    assert list(score_command.whole_characters(cut, tokenizer))[-1] == ("\ufffd", -1.0)
    assert r"b'\xc3'" in "".join(score_command.token_lines(score, tokenizer))


class _Array(list):
    def __getitem__(self, index):
        return _Array(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)

    def tolist(self):
        return list(self)


# ---- encodings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "train --help",
        "info --no-measure --preset tiny",
        "study bugs",
        "tokenizer show --tokenizer model a",
        "runs",
        "generate --help",
        "score é --model nowhere",
    ],
)
def test_any_output_encoding(folder, command):
    ended = _run(folder, *command.split(), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert b"Traceback" not in ended.stderr and b"UnicodeEncodeError" not in ended.stderr
    ended.stdout.decode("ascii")
    assert ended.returncode in (0, 2, 3)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_training_goes_on_in_any_output_encoding(folder, encoding):
    (folder / "text.txt").write_text("文 Ω ш " * 90, encoding="utf-8")
    ended = _run(folder, *TRAIN, PYTHONIOENCODING=encoding)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "run" / "checkpoints" / "step-12").is_dir()
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_prepared_data_are_shown_in_any_output_encoding(folder, encoding):
    prepare = "data prepare text.txt --tokenizer words --out shards".split()
    Tokenizer.train("ab é", 258).save(folder / "words")
    for command in (prepare, ["data", "inspect", "shards"], ["data", "verify", "shards"]):
        ended = _run(folder, *command, PYTHONIOENCODING=encoding)
        assert ended.returncode == 0, ended.stderr


# ---- an output that goes away ------------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("shell", ["{} > /dev/full", "{} | head -1; exit ${{PIPESTATUS[0]}}", "{} >&- 2>&-"])
def test_training_goes_on_without_its_output(folder, shell):
    ended = _run(folder, *TRAIN, shell=shell)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "run" / "checkpoints" / "step-12").is_dir()
    assert ended.stderr.count(b"\n") <= 1 and (b"goes on" in ended.stderr or ">&-" in shell)


@on_linux
def test_a_recipe_goes_on_without_its_output(folder):
    (folder / "recipe.py").write_text(
        "from gpt_numpy.commands.train import recipe\nfrom gpt_numpy.training import Settings\n"
        "recipe(Settings(max_steps=12))\n"
    )
    command = f"{sys.executable} recipe.py {' '.join(TRAIN[1:])} > /dev/full"
    ended = subprocess.run(["bash", "-c", command], cwd=folder, env=_environment(), capture_output=True)
    assert ended.returncode == 0 and b"recipe.py" not in ended.stderr.splitlines()[-1], ended.stderr
    assert (folder / "run" / "checkpoints" / "step-12").is_dir()


def test_a_program_gives_its_streams_back_and_returns_what_a_parser_exits_with(capsys):
    before = sys.stdout, sys.stderr

    def stop():
        print("\x1b[2J")
        raise SystemExit(2)

    assert terminal.run_program("program", stop) == 2
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "\x1b[2J\n"


@on_linux
def test_training_goes_on_without_standard_error(folder):
    ended = _run(folder, *TRAIN, shell="{} 2> /dev/full")
    assert ended.returncode == 0 and (folder / "run" / "checkpoints" / "step-12").is_dir()


@on_linux
def test_other_commands_say_that_their_output_is_lost(folder):
    ended = _run(folder, "gradcheck", "gelu", shell="{} > /dev/full")
    assert ended.returncode == 3 and ended.stderr.count(b"\n") == 1 and b"standard output: " in ended.stderr
    ended = _run(folder, "study", "bugs", shell="{} | head -1; exit ${{PIPESTATUS[0]}}")
    assert ended.returncode in (0, 141) and ended.stderr == b""
    ended = _run(folder, "train", "--help", shell="{} | head -1; exit ${{PIPESTATUS[0]}}")
    assert ended.returncode in (0, 141) and ended.stderr == b""


@on_linux
def test_a_file_never_gets_the_number_of_a_closed_output(folder):
    """A checkpoint opened as descriptor 1 would receive what is printed."""
    ended = _run(folder, *TRAIN, shell="{} <&- >&- 2>&-")
    assert ended.returncode == 0
    assert json.loads((folder / "run" / "checkpoints" / "step-12" / "trainer_state.json").read_bytes())
