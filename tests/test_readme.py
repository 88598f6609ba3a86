"""The README's promises that a test can hold it to: its tree is the tree, its Python runs, its commands exist."""

import pathlib
import re

import pytest

from gpt_numpy.commands import SUBCOMMANDS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def listed_files():
    tree = README.split("## Where everything is")[1].split("```")[1]
    folder, files = None, set()
    for line in tree.strip().splitlines():
        if line.startswith("    "):
            files.add(f"{folder}{line.split()[0]}")
        else:
            folder = line.split()[0]
    return files


def test_the_tree_lists_every_file_and_no_other():
    there = {
        path.relative_to(ROOT).as_posix()
        for top in ("gpt_numpy", "scripts", "benchmarks")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix in {".py", ".html", ".css", ".js", ".png"} and "__pycache__" not in path.parts
    }
    assert listed_files() == there


def test_every_command_is_named_and_every_named_command_exists():
    text = README.split("## Where everything is")[0]
    named = set(re.findall(r"(?:^|`|\$ |&& )gpt-numpy ([a-z]+)", text, re.MULTILINE))
    assert named <= set(SUBCOMMANDS), named - set(SUBCOMMANDS)
    introduced = README.split("lists the commands:")[1].split(".")[0]
    assert set(re.findall(r"`([a-z]+)`", introduced)) == set(SUBCOMMANDS)


def test_the_first_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = README.split("The same from Python:")[1].split("```python")[1].split("```")[0]
    names = {}
    exec(code, names)
    assert names["model"].grads["h.0.attn.c_attn.weight"].shape == (32, 96)
    assert (tmp_path / "folder" / "model.safetensors").is_file()


@pytest.mark.parametrize("line", ['pip install ".[plot]" && gpt-numpy train', 'pip install ".[test]" && pytest'])
def test_the_two_commands_stand_on_the_first_screen(line):
    assert line in README.splitlines()[:32]
