"""The README's promises that a test can hold it to: one page, its map is the tree, its Python runs, its commands exist."""

import ast
import pathlib
import re

import pytest

from gpt_numpy.commands import SUBCOMMANDS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def map_lines():
    tree = README.split("## Where things are")[1].split("```")[1]
    return [line.split(None, 1) for line in tree.strip().splitlines()]


def first_sentence(folder):
    """Of the docstring of a folder's ``__init__``, in one line and without marks of code; None where there is none."""
    path = ROOT / folder / "__init__.py"
    if not path.is_file():
        return None
    text = " ".join(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n")[0].split())
    return re.match(r".*?[.](?=\s|$)", text.replace("``", ""))[0]


def test_it_is_one_page():
    assert len(README.splitlines()) <= 240


def test_the_map_names_every_folder_of_the_package_and_no_other():
    package = {f"gpt_numpy/{path.parent.name}" for path in (ROOT / "gpt_numpy").glob("*/__init__.py")}
    listed = [folder for folder, _ in map_lines()]
    assert set(listed) == package | {"benchmarks", "scripts", "tests"}
    assert all((ROOT / folder).is_dir() for folder in listed)


@pytest.mark.parametrize("folder, sentence", map_lines())
def test_a_line_of_the_map_is_the_first_sentence_of_the_folder_s_docstring(folder, sentence):
    expected = first_sentence(folder)
    assert sentence == expected if expected is not None else sentence.endswith(".")


def test_every_command_is_named_and_every_named_command_exists():
    named = set(re.findall(r"(?:^|`|\$ |&& )gpt-numpy ([a-z]+)", README, re.MULTILINE))
    assert named <= set(SUBCOMMANDS), named - set(SUBCOMMANDS)
    introduced = README.split("The commands are")[1].split(";")[0]
    assert set(re.findall(r"`([a-z]+)`", introduced)) == set(SUBCOMMANDS)


def test_the_first_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(README.split("```python")[1].split("```")[0], names)
    assert names["model"].grads["h.0.attn.c_attn.weight"].shape == (32, 96)
    assert names["t"]["h.0.attn.weights"].grad.shape == names["t"]["h.0.attn.weights"].value.shape
    assert (tmp_path / "folder" / "model.safetensors").is_file()


@pytest.mark.parametrize("line", ['pip install -e ".[plot]" && gpt-numpy train', 'pip install -e ".[test]" && pytest'])
def test_the_two_commands_stand_on_the_first_screen(line):
    assert line in README.splitlines()[:50]
