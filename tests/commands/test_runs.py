import json

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
