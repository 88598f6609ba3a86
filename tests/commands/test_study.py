import io
import json
import re

from gpt_numpy import GPT, CharTokenizer, GPTConfig, layers
from gpt_numpy.commands import main
from gpt_numpy.commands.study import LABS
from gpt_numpy.study.bugs import BUGS
from gpt_numpy.study.exercises import EXERCISES, stubs
from gpt_numpy.study.labs import FAULTS

NAME = "gelu-cubic-factor-forgotten"


def test_bugs_are_listed_with_their_checks(capsys):
    assert main(["study", "bugs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BUGS)
    assert lines[list(BUGS).index(NAME)].split(maxsplit=1) == [NAME, "gelu: differences of x"]


def test_into_a_pipe_everything_is_shown_in_order(capsys):
    assert main(["study", "bug", NAME]) == 0
    out = capsys.readouterr().out
    assert out.index("FAILED") < out.index("\nHint\n") < out.index("\nAnswer\n") < out.index("--- gelu.py")
    assert "-    du_dx = SCALE * (1 + 3 * CUBIC * x * x)" in out and "+    du_dx = SCALE * (1 + CUBIC * x * x)" in out


def test_show_stops_where_it_is_told(capsys):
    main(["study", "bug", NAME, "--show", "symptom"])
    symptom = capsys.readouterr().out
    main(["study", "bug", NAME, "--show", "hint"])
    hint = capsys.readouterr().out
    assert "Hint" not in symptom and "FAILED" in symptom
    assert hint.startswith(symptom.rstrip("\n")) and "Hint" in hint and "CUBIC" not in hint


def test_on_a_terminal_a_key_press_uncovers_the_next_part(capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    asked = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("builtins.input", asked.append)
    assert main(["study", "bug", NAME]) == 0
    assert asked == ["\n[Enter for the hint] ", "\n[Enter for the answer] "]


def test_an_unknown_bug_suggests_the_nearest(capsys):
    assert main(["study", "bug", "gelu-cubic-factor"]) == 2
    assert f"did you mean '{NAME}'" in capsys.readouterr().err


def test_an_exercise_is_written_checked_and_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "exercise", "layernorm"]) == 0
    path = tmp_path / "exercises" / "layernorm.py"
    assert "raise NotImplementedError" in path.read_text()
    assert main(["study", "exercise", "layernorm", "--check"]) == 1
    assert "layernorm: not written" in capsys.readouterr().out
    solution = stubs.solution(EXERCISES["layernorm"])
    path.write_text(solution.replace("    dx -= shift\n", ""))
    assert main(["study", "exercise", "layernorm", "--check"]) == 1
    out = capsys.readouterr().out
    assert "dx[" in out and "'layernorm-mean-term-forgotten'" in out and "--hint" in out
    assert main(["study", "exercise", "layernorm", "--check", "--hint"]) == 1
    assert "hint: Sum the numeric dx over a row" in capsys.readouterr().out
    assert main(["study", "exercise"]) == 0
    assert re.search(r"layernorm +wrong", capsys.readouterr().out)
    path.write_text(solution)
    assert main(["study", "exercise", "layernorm", "--check"]) == 0
    assert main(["study", "exercise", "train", "--steps", "2"]) == 0
    assert "trains on your layernorm" in capsys.readouterr().out
    assert main(["study", "exercise", "layernorm"]) == 2
    assert "worked on" in capsys.readouterr().err


def test_an_unknown_exercise_suggests_the_nearest(capsys):
    assert main(["study", "exercise", "layernrm"]) == 2
    assert "did you mean 'layernorm'" in capsys.readouterr().err


def test_lessons_are_listed_written_and_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "lesson"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 19 and listed[0].startswith("00  The chain rule by hand")
    assert main(["study", "lesson", "0", "--no-open"]) == 0
    path = tmp_path / "00_chain_rule_by_hand.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert any(cell.get("outputs") for cell in notebook["cells"])
    path.write_text("{}")
    assert main(["study", "lesson", "0", "--no-open"]) == 0 and path.read_text() == "{}"
    assert main(["study", "lesson", "0", "--no-open", "--again"]) == 0 and path.read_text() != "{}"
    assert "as you left it" in capsys.readouterr().out
    assert main(["study", "lesson", "00", "--terminal"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("lesson 0 holds")
    assert main(["study", "lesson", "77"]) == 2
    assert "00 to 16" in capsys.readouterr().err


def test_curvature_of_a_model(tmp_path, capsys):
    tokenizer = CharTokenizer.train(["the cat sat on the mat, dog"])
    model = GPT(GPTConfig(tokenizer.n_vocab, 8, n_layer=1, n_head=2, n_embd=8), ops=layers)
    model.save(tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    (tmp_path / "text.txt").write_text("the cat sat on the mat " * 20)
    command = ["study", "curvature", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "text.txt")]
    assert main([*command, "--products", "5", "--probes", "2", "--length", "6"]) == 0
    out = capsys.readouterr().out
    figures = {
        line[:20].strip(): line[20:].split()[0]
        for line in out.splitlines()
        if line.startswith(("larg", "smal", "trace"))
    }
    assert float(figures["largest eigenvalue"]) > 0 > float(figures["smallest eigenvalue"])
    assert "gradient noise scale" in out
    assert main([*command, "--sequences", "1"]) == 2


def test_a_riddle_by_number_hides_its_name_until_the_answer(capsys):
    number = list(BUGS).index(NAME) + 1
    assert main(["study", "bug", str(number), "--show", "hint"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"riddle {number}, in gelu") and NAME not in out and "---" not in out
    assert main(["study", "bug", str(number)]) == 0
    out = capsys.readouterr().out
    assert out.index("\nAnswer\n") < out.index(NAME) < out.index("--- gelu.py")
    assert main(["study", "bug", "--random", "--layer", "dropout", "--show", "symptom"]) == 0
    out = capsys.readouterr().out
    assert ", in dropout" in out and not [name for name in BUGS if name in out]
    assert main(["study", "bugs", "--numbers"]) == 0
    out = capsys.readouterr().out
    assert f"{number:<3} gelu\n" in out and not [name for name in BUGS if name in out]


def test_a_riddle_is_mended_in_a_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    number = list(BUGS).index(NAME) + 1
    assert main(["study", "bug", str(number), "--check"]) == 2
    assert main(["study", "bug", str(number), "--edit"]) == 0
    (path,) = (tmp_path / "riddles").iterdir()
    assert main(["study", "bug", str(number), "--check"]) == 1
    assert "not yet:\n  gelu: differences of x" in capsys.readouterr().out
    path.write_text(path.read_text().replace(BUGS[NAME].new, BUGS[NAME].old))
    assert main(["study", "bug", str(number), "--check"]) == 0
    assert main(["study", "bug", str(number), "--edit"]) == 2
    path.write_text("def broken(:")
    assert main(["study", "bug", str(number), "--check"]) == 1


def test_riddles_that_are_not_there(capsys):
    assert main(["study", "bug", "999"]) == 2
    assert main(["study", "bug"]) == 2
    assert main(["study", "bug", "--random", "--layer", "atention"]) == 2
    assert "did you mean 'attention'" in capsys.readouterr().err


def test_labs_are_listed_and_opened_as_notebooks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "lab"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][:-1] == list(LABS)
    for number, name in enumerate(LABS, start=1):
        assert main(["study", "lab", name, "--notebook", "--no-open"]) == 0
        notebook = json.loads((tmp_path / f"lab_{number}_{name}.ipynb").read_text(encoding="utf-8"))
        assert any(cell.get("outputs") for cell in notebook["cells"])
    capsys.readouterr()
    assert main(["study", "lab", "architecture"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("lab 4 holds")


def test_labs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "lab", "sweep", "--values", "1e-5", "5e-3", "--predict", "5e-3", "--steps", "15"]) == 0
    assert "as you predicted" in capsys.readouterr().out
    assert main(["study", "lab", "attention", "--case", "2", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "lab.html").stat().st_size > 50_000 and out.count("leaking-mask") == 1
    answers = [main(["study", "lab", "attention", "--case", "2", "--answer", fault]) for fault in FAULTS]
    assert sorted(answers) == [0, 1, 1, 1]
    assert main(["study", "lab", "attention", "--answer", "dead-lyer"]) == 2
