import io

from gpt_numpy.commands import main
from gpt_numpy.study.bugs import BUGS

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
