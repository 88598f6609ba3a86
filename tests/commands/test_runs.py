import json
import sys

import pytest

from gpt_numpy.commands import main
from gpt_numpy.training import Settings, config_file


def make_run(folder, losses, **settings):
    folder.mkdir(parents=True)
    lines = []
    for step, loss in enumerate(losses, 1):
        lines.append(
            {
                "kind": "train",
                "step": step,
                "loss": loss + 0.5,
                "learning_rate": 1e-3,
                "gradient_norm": 1.0,
                "tokens_per_second": 1000.0 * step,
                "seconds": 61.0 * step,
            }
        )
        lines.append({"kind": "validation", "step": step, "loss": loss, "bits_per_byte": loss / 2, "tokens": 9})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "config.toml").write_text(config_file.format(Settings(**settings)), encoding="utf-8")


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "runs" / "a", [4.0, 3.0, 3.5], seed=1)
    make_run(tmp_path / "runs" / "b", [4.0, 2.0], seed=2, dropout=0.1)
    return tmp_path / "runs"


def test_table_compares_and_says_what_differs(runs, capsys):
    assert main(["runs", str(runs)]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["run", "step", "train", "val", "best"]
    assert first.split() == [
        str(runs / "b"),
        "2",
        "2.5000",
        "2.0000",
        "2.0000",
        "1.0000",
        "2,000",
        "0:02:02",
        "dropout=0.1",
        "seed=2",
    ]
    assert second.split() == [
        str(runs / "a"),
        "3",
        "4.0000",
        "3.5000",
        "3.0000",
        "1.7500",
        "2,000",
        "0:03:03",
        "dropout=0.0",
        "seed=1",
    ]
    assert main(["runs", "--sort", "name", str(runs)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(str(runs / "a"))


def test_a_run_is_listed_once_and_without_settings_too(runs, capsys):
    (runs / "b" / "config.toml").unlink()
    (runs / "c").mkdir()
    (runs / "c" / "metrics.jsonl").write_text("")
    assert main(["runs", str(runs / "a"), str(runs)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_one_picture(runs, tmp_path, capsys):
    assert main(["runs", str(runs), "--plot", str(tmp_path / "all.png")]) == 0
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_there(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 2
    assert "no runs" in capsys.readouterr().err


def test_runs_that_do_not_compare_stand_apart(runs, capsys):
    make_run(runs / "c", [2.5], data=("notes/",), seed=3)
    assert main(["runs", str(runs)]) == 0
    out = capsys.readouterr().out
    first, second, note = out.strip().split("\n\n")
    assert first.startswith("validated alike: data=python-docs") and str(runs / "a") in first
    assert second.startswith("validated alike: data=notes/") and str(runs / "c") in second
    assert "losses compare within a part" in note


def test_json_has_every_figure(runs, capsys):
    assert main(["runs", str(runs), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["run"], first["step"], first["best_validation_loss"]) == (str(runs / "a"), 3, 3.0)
    assert second["settings"]["dropout"] == 0.1 and second["finished"] is False


def test_a_narrow_terminal_gets_a_narrow_table(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.chdir(runs.parent)
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 5 and lines[2].strip() == "dropout=0.1 seed=2"


def test_the_live_view_draws_until_it_is_stopped(runs, capsys, monkeypatch):
    from gpt_numpy.commands import runs as command

    frames = iter(["one", "two"])

    def show():
        try:
            return next(frames)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(command.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert command.watch(show, 1.0) == 0
    assert capsys.readouterr().out == "\x1b[H\x1b[Jone\n\x1b[H\x1b[Jtwo\n"


def test_the_live_view_shows_the_table_and_a_chart(runs, capsys):
    assert main(["runs", "--watch", "1", str(runs)]) == 0  # no terminal: once
    out = capsys.readouterr().out
    assert "settings that differ" in out and "validation loss o" in out
    assert "│" in out and "o" in out.split("│", 1)[1] and "step " in out
    assert main(["runs", "--watch", "1", str(runs / "none")]) == 0
    assert "yet" in capsys.readouterr().out


def test_a_chart_stays_within_its_size():
    from gpt_numpy.commands.runs import chart

    records = [{"kind": "train", "step": s, "loss": 5 / s} for s in range(1, 500)]
    lines = chart([*records, {"kind": "validation", "step": 499, "loss": 0.1}], 60, rows=8).splitlines()
    assert len(lines) == 10 and max(map(len, lines)) <= 60 and lines[0].startswith("       5│·")
    assert lines[7].rstrip().endswith("o") and chart([], 60) == "(nothing measured yet)"
