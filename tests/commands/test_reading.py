"""Text is read for a model as the model's training text was read: by score, eval, generate, and from Python."""

import json
import shutil

import pytest

import gpt_numpy
from gpt_numpy.commands import main
from gpt_numpy.data import reading_of
from gpt_numpy.training import Settings, start

TEXT = "".join(f"the cat number {i} sat on a mat, and café {i}\n" for i in range(120))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reading")
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    settings = dict(tokenizer="char", preset="tiny", max_steps=5, sample_every=0, ops="layers", eval_windows=2)
    start(Settings(data=(str(folder / "a.txt"),), **settings), folder / "run")
    chapter = TEXT[:900]
    for name, text in {
        "plain": chapter,
        "crlf": chapter.replace("\n", "\r\n"),
        "bom": "\ufeff" + chapter,
        "nfd": chapter.replace("é", "e\u0301"),
    }.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def run(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_score_gives_every_spelling_of_a_text_the_same(folder, capsys):
    outputs, said = {}, {}
    for name in ("plain", "crlf", "bom", "nfd"):
        words = ["score", "--json", "--model", str(folder / "run"), "--file", str(folder / f"{name}.txt")]
        assert main(words) == 0
        outputs[name], said[name] = capsys.readouterr()
    steps = {"crlf": "newlines", "bom": "bom", "nfd": "nfc"}
    assert "normalised" not in said["plain"] and json.loads(outputs["plain"])["tokens"] > 0
    for name, step in steps.items():
        assert f"normalised as the model's training text was: {step}\n" in said[name]  # not among the JSON
        assert outputs[name] == outputs["plain"]


def test_eval_too(folder, capsys):
    found = [
        next(
            iter(
                list(
                    json.loads(
                        run(capsys, "eval", "--json", "--model", folder / "run", "--text", folder / f"{n}.txt")
                    ).values()
                )[1:]
            )
        )
        for n in ("plain", "crlf", "bom", "nfd")
    ]
    assert all(figures == found[0] for figures in found)


def test_generate_and_python_too(folder, capsys):
    plain, spelled = "café 1\nthe", "\ufeffcafe\u0301 1\r\nthe"
    words = ["--model", folder / "run", "--max-new-tokens", 12, "--no-figures"]
    expected = run(capsys, "generate", *words, "--prompt", plain)
    assert run(capsys, "generate", *words, "--prompt", spelled)[len(spelled) :] == expected[len(plain) :]
    model = gpt_numpy.load(folder / "run")
    assert model.score(plain).loss == model.score(spelled).loss
    assert model.generate(plain, 12)[len(plain) :] == model.generate(spelled, 12)[len(spelled) :]


def test_the_record_goes_along_into_other_folders(folder, tmp_path):
    assert main(["convert", str(folder / "run"), str(tmp_path / "converted")]) == 0
    assert (
        main(["quantize", "--model", str(folder / "run"), "--out", str(tmp_path / "packed"), "--format", "int8"]) == 0
    )
    for name in ("converted", "packed"):
        assert reading_of(tmp_path / name) == reading_of(folder / "run")


def test_passages_and_questions_of_eval_too(folder, tmp_path, capsys):
    def figures(name, spelled):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": spelled}))
        question = {"ctx": spelled, "endings": ["mat, and café", "cat"], "label": 0}
        question["endings"] = [
            ending.replace("é", "e\u0301") if name == "nfd" else ending for ending in question["endings"]
        ]
        (tmp_path / f"{name}-choices.jsonl").write_text(json.dumps(question))
        words = ["--next-word", tmp_path / f"{name}.jsonl", "--choices", tmp_path / f"{name}-choices.jsonl"]
        return list(json.loads(run(capsys, "eval", "--json", "--model", folder / "run", *words)).values())[1:]

    plain = "the cat number 7\nsat on a mat, and café"
    assert figures("nfd", "\ufeff" + plain.replace("é", "e\u0301").replace("\n", "\r\n")) == figures("plain", plain)


def test_a_checkpoint_from_before_the_record_is_read_by_its_settings(folder, tmp_path):
    (step,) = (folder / "run" / "checkpoints").iterdir()
    expected = reading_of(step)
    shutil.copytree(step, tmp_path / "old")
    (tmp_path / "old" / "reading.json").unlink()
    state = json.loads((step / "trainer_state.json").read_bytes())
    (tmp_path / "old" / "trainer_state.json").write_text(json.dumps(state))
    assert reading_of(tmp_path / "old") == expected
    del state["reading"]
    (tmp_path / "old" / "trainer_state.json").write_text(json.dumps(state))
    assert reading_of(tmp_path / "old").normalize == expected.normalize
    (tmp_path / "old" / "trainer_state.json").write_text("{}")
    assert reading_of(tmp_path / "old") is None
