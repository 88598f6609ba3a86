import os
import shlex
import subprocess
import sys

import pytest

from gpt_numpy.command_line import in_flags
from gpt_numpy.commands import SUBCOMMANDS, build_parser, main
from gpt_numpy.errors import CheckpointMismatch, ConfigError, DataError, GenerationError


def refused(argv, capsys):
    """The lines that a mistake in ``argv`` prints."""
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "line,said",
    [
        ("train --dta x", "gpt-numpy train: no flag --dta; did you mean --data?"),
        ("train --learningrate 1", "gpt-numpy train: no flag --learningrate; did you mean --learning-rate?"),
        ("train -batch-size 4", "gpt-numpy train: no flag -batch-size; did you mean --batch-size?"),
        ("train --max_steps=4", "gpt-numpy train: no flag --max_steps; did you mean --max-steps?"),
        ("generate --max-tokens 40", "gpt-numpy generate: no flag --max-tokens; did you mean --max-new-tokens?"),
        ("generate --qwertyuiop", "gpt-numpy generate: no flag --qwertyuiop; 'gpt-numpy generate --help' lists them"),
        ("generate --model a more", "gpt-numpy generate: nothing takes 'more' here"),
        ("generate", "gpt-numpy generate: --model is missing"),
        ("generate --model", "gpt-numpy generate: --model needs a value"),
        ("train --schedule cosin", "gpt-numpy train: --schedule: no choice 'cosin'; did you mean cosine?"),
        ("train --lr fast", "gpt-numpy train: --learning-rate: 'fast' is not a number"),
        ("train --max-steps 1.5", "gpt-numpy train: --max-steps: '1.5' is not a whole number"),
        ("trian", "gpt-numpy: no command 'trian'; did you mean train?"),
        ("--debug", "gpt-numpy: no flag --debug; 'gpt-numpy --help' lists them"),
        ("tokenizer shw", "gpt-numpy tokenizer: no command 'shw'; did you mean show?"),
        ("tokenizer show --tokeniser x", "gpt-numpy tokenizer show: no flag --tokeniser; did you mean --tokenizer?"),
    ],
)
def test_a_mistake_is_one_short_usage_and_one_sentence(line, said, capsys):
    usage, sentence = refused(line.split(), capsys)
    assert usage.startswith("usage: gpt-numpy") and len(usage) < 100
    assert sentence == said


def test_values_that_look_like_flags_are_none(capsys):
    args = build_parser("generate").parse_args(["generate", "--model", "m", "--temperature", "-1", "--prompt", "-- no"])
    assert (args.temperature, args.prompt) == (-1.0, "-- no")


@pytest.mark.parametrize("line", ["train notes/ --preset tiny", "train --preset tiny notes/", "train --data notes/"])
def test_data_may_stand_by_itself(line):
    from gpt_numpy.commands.train import values_of

    assert values_of(build_parser("train").parse_args(line.split()))[0]["data"] == ("notes/",)


def test_data_is_given_once(capsys):
    assert main(["train", "a", "--data", "b"]) == 2
    assert "--data: given twice" in capsys.readouterr().err


def test_the_short_name_of_the_learning_rate():
    assert build_parser("train").parse_args(["train", "--lr", "3e-4"]).set_learning_rate == 3e-4


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_has_examples_that_parse(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: gpt-numpy {name} ") and "(default: None)" not in text
    examples = [line.strip() for line in text.split("\nexamples:\n")[1].splitlines() if line.startswith("  gpt-numpy ")]
    assert examples
    for example in examples:
        assert build_parser(name).parse_args(shlex.split(example)[1:]).run is not None
    assert all(len(line) <= 100 for line in text.splitlines())


def test_nothing_at_all_is_answered_with_help(capsys):
    assert main([]) == 2
    assert "first steps:" in capsys.readouterr().err


def test_errors_name_flags():
    flags = {"max_steps": "--max-steps", "seed": "--seed", "n_embd": "--n-embd", "n_head": "--n-head"}
    error = ConfigError("not a size", field="seed", found=-1, expected="a seed >= 0")
    assert in_flags(error, flags, {}) == "--seed: not a size: found -1; expected a seed >= 0"
    error = ConfigError("must divide n_embd", path="runs/max_steps", field="n_head", found=5)
    assert in_flags(error, flags, {}) == "runs/max_steps, --n-head: must divide --n-embd: found 5"
    for error in (
        ConfigError("must divide n_embd", path="recipe.toml", field="n_head"),
        CheckpointMismatch("no model has this", path="config.json", field="n_head"),
    ):
        assert in_flags(error, flags, {}) == str(error)
    error = GenerationError("special text", expected="allowed_special to hold it")
    assert in_flags(error, {}, {"allowed_special": "--specials"}) == "special text: expected --specials to hold it"
    error = DataError("not UTF-8", path="a.txt", expected="errors=replace")
    assert in_flags(error, {}, {"errors=replace": "--errors replace"}).endswith("expected --errors replace")


@pytest.mark.parametrize(
    "line,said",
    [
        ("train --config no.toml", "gpt-numpy train: no.toml: there is no such file or folder"),
        ("score --model m --file no.txt", "gpt-numpy score: no.txt: there is no such file or folder"),
        ("train --max-steps 0", "gpt-numpy train: --max-steps: "),
        ("train data/shakespeare/x.txt", "expected after 'gpt-numpy download shakespeare'"),
        ("train --init-from data/gpt2", "expected data/gpt2, after 'gpt-numpy download gpt2'"),
    ],
)
def test_faults_are_plain_sentences(line, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) in (2, 3)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Errno" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line,expected", [("train --sched", "--schedule"), ("gr", "gradcheck"), ("train --schedule co", "cosine")]
)
def test_completion_by_argcomplete(line, expected):
    pytest.importorskip("argcomplete", reason="needs argcomplete")
    line = f"gpt-numpy {line}"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    code = "from gpt_numpy.commands import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert expected in [word.strip() for word in done.stdout.split("\n")]


@pytest.mark.parametrize("line", ["data prepare", "data inspect", "data verify", "tokenizer train", "tokenizer show"])
def test_help_of_an_action_names_no_default_that_is_none(line, capsys):
    with pytest.raises(SystemExit):
        main([*line.split(), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: None)" not in text and "(default: False)" not in text
