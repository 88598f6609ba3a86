import os
import signal
import subprocess
import sys

import pytest

from gpt_numpy.commands import main
from gpt_numpy.training import Settings, config_file, plots

TINY = "--tokenizer char --preset tiny --batch-size 4 --eval-windows 5 --sample-every 0 --ops layers".split()


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and looked at the dog.\n" * 200, encoding="utf-8")
    return str(path)


def test_trains_and_resumes(text, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "--data", text, "--out", run, "--max-steps", "3", *TINY]) == 0
    out = capsys.readouterr().out
    assert "a unigram model has a validation loss of" in out and "checkpoints/step-3" in out
    assert main(["train", "--resume", run, "--max-steps", "5"]) == 0
    assert "resuming" in capsys.readouterr().out


def test_flags_win_over_the_file(text, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(f"data = ['{text}']\nmax_steps = 2\nseed = 9\n[model]\nn_layer = 1\n", encoding="utf-8")
    run = tmp_path / "run"
    assert main(["train", "--config", str(config), "--out", str(run), "--max-steps", "1", *TINY]) == 0
    settings = Settings.from_mapping(config_file.read(run / "config.toml"))
    assert (settings.max_steps, settings.seed, settings.n_layer, settings.data) == (1, 9, 1, (text,))


@pytest.mark.parametrize(
    "flags,code,message",
    [
        (["--data", "no-such-file.txt"], 3, "no-such-file.txt"),
        (["--n-head", "5"], 2, "divisor"),
        (["--n-kv-head", "3"], 2, "--n-kv-head"),
        (["--positions", "rotary", "--head-dim", "3"], 2, "even"),
        (["--window-from", "1"], 2, "sliding window"),
        (["--learning-rate", "nan"], 2, "--learning-rate"),
        (["--resume", "no-such-run"], 2, "no such run"),
        (["--config", "no-such.toml"], 3, "no-such.toml"),
        (["--init-from", "no-such-folder"], 3, "no-such-folder"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(flags, code, message, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", text, "--out", "run", *TINY, *flags]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--max-steps=many", "--schedule=cosin", "--nonsense"])
def test_usage_errors(flag, capsys):
    with pytest.raises(SystemExit) as error:
        main(["train", flag])
    assert error.value.code == 2


def test_help_lists_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for name, value in Settings().to_dict().items():
        assert f"--{name.replace('_', '-')}" in out
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert f"(default: {value})" in out


@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_so_in_the_exit_code(number, code, text, tmp_path):
    command = [sys.executable, "-m", "gpt_numpy", "train", "--data", text, "--out", str(tmp_path / "run")]
    command += ["--max-steps", "1000000", *TINY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    try:
        for line in process.stdout:
            if line.startswith("step 0:"):
                process.send_signal(number)
                break
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == code
    assert "stopped by a signal" in out
    assert any(name.startswith("step-") for name in os.listdir(tmp_path / "run" / "checkpoints"))


@pytest.mark.parametrize(
    "raised", ["ImportError('no module')", "RuntimeError('cannot load MPI library\\nlibmpi.so.12: no')"]
)
def test_an_mpi_that_cannot_be_loaded_is_one_line(tmp_path, monkeypatch, capsys, raised):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("")
    (tmp_path / "mpi4py" / "MPI.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("mpi4py") or name.endswith("ranks.mpi")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["train", "--mpi", "--data", "missing"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "mpi4py cannot be used" in error and "[mpi]" in error
