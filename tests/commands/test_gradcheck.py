import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from gpt_numpy import layers
from gpt_numpy.commands import main
from gpt_numpy.study import cases


def test_chosen_layers_are_printed_and_pass(capsys):
    assert main(["gradcheck", "linear", "gelu"]) == 0
    out = capsys.readouterr().out.splitlines()
    names = ["layer", "tensor", "checked", "error", "worst", "at", "analytic", "numeric", "ulps", "dot", "product"]
    assert out[1].split() == names
    rows = [line.split() for line in out[2:-1] if "(" not in line.split()[1]]  # the plain forms
    assert [row[:3] for row in rows] == [
        ["linear", "x", "120/120"],
        ["linear", "weight", "132/132"],
        ["linear", "bias", "11/11"],
        ["gelu", "x", "120/120"],
    ]
    assert all(row[-1] == "ok" and float(row[3]) < 1e-6 and float(row[-2]) <= 1e-13 for row in rows)
    assert re.fullmatch(r"\d+ tensors, \d+ entries and 0 directions in \S+ s: largest error \S+, 0 failed", out[-1])


def test_a_wrong_gradient_exits_with_one_and_says_where(capsys, monkeypatch):
    def gelu_backward(dout, cache, alloc=None):
        dx = layers.gelu.gelu_backward(dout, cache)
        dx[1, 2, 3] += 0.5
        return dx

    monkeypatch.setattr(layers, "gelu_backward", gelu_backward)
    assert main(["gradcheck", "gelu"]) == 1
    out = capsys.readouterr().out
    assert "[1,2,3]" in out and "FAILED" in out and out.rstrip().endswith("1 failed")


def test_a_broken_rule_exits_with_one(capsys, monkeypatch):
    def gelu_backward(dout, cache, alloc=None):
        dx = layers.gelu.gelu_backward(dout, cache)
        dout *= 2
        return dx

    monkeypatch.setattr(layers, "gelu_backward", gelu_backward)
    assert main(["gradcheck", "gelu"]) == 1
    assert "untouched: written to: dout" in capsys.readouterr().out


def test_too_coarse_a_step_fails(capsys):
    assert main(["gradcheck", "gelu", "--step", "0.1"]) == 1
    assert main(["gradcheck", "gelu", "--step", "0.1", "--tolerance", "0.1"]) == 0


@pytest.mark.parametrize("name, suggestion", [("atention", "'attention'"), ("modle", "'model'")])
def test_an_unknown_layer_is_a_usage_error_in_one_line(capsys, name, suggestion):
    assert main(["gradcheck", name]) == 2
    captured = capsys.readouterr()
    assert suggestion in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_another_seed_is_another_check(capsys):
    main(["gradcheck", "linear", "--seed", "1"])
    first = capsys.readouterr().out
    main(["gradcheck", "linear", "--seed", "2"])
    assert first.splitlines()[2:-1] != capsys.readouterr().out.splitlines()[2:-1]
    assert len(cases.layer_names()) >= 12


def test_the_complex_step_agrees_to_the_last_bits(capsys):
    assert main(["gradcheck", "attention", "gelu", "--method", "complex", "--tolerance", "1e-14"]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_what_is_not_analytic_is_refused(capsys):
    assert main(["gradcheck", "cross-entropy", "--method", "complex"]) == 2
    assert "cross-entropy" in capsys.readouterr().err


def test_the_v_curve_is_printed_and_drawn(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["gradcheck", "gelu", "--v-curve", "--plot", str(tmp_path / "v.png")]) == 0
    out = capsys.readouterr().out
    assert out.count("  best: h ") == 2 and "gelu, complex step" in out
    assert (tmp_path / "v.png").read_bytes()[:4] == b"\x89PNG"


def test_a_plot_without_a_curve_is_a_usage_error(capsys, tmp_path):
    assert main(["gradcheck", "gelu", "--plot", str(tmp_path / "v.png")]) == 2
    assert "--v-curve" in capsys.readouterr().err


def test_what_is_checked_is_named_and_a_terminal_gets_the_legend(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["gradcheck", "gelu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{Path(layers.__file__).parent}: float64")
    assert any("ulps: " in line for line in lines) and max(map(len, lines[1:])) <= 80
    text = " ".join(lines)
    assert "dot product: |⟨u, Jv⟩ − ⟨Jᵀu, v⟩|" in text and "with a mask that shows a key too" in text
    assert "1 tensor, 120 entries and 0 directions" in lines[-1]


def test_a_terminal_shows_colours_and_not_their_codes(tmp_path):
    """Through a pseudo-terminal: the program escapes control characters, but not its own colours."""
    pty = pytest.importorskip("pty")
    pieces = []

    def read(descriptor):
        pieces.append(os.read(descriptor, 4096))
        return pieces[-1]

    symptom = ["study", "bug", "gelu-cubic-factor-forgotten", "--show", "symptom"]
    script = "import os; os.environ.pop('NO_COLOR', 0); from gpt_numpy.commands import main; main()"
    for command in (["gradcheck", "gelu", "--step", "0.1"], symptom):
        pieces.clear()
        with contextlib.redirect_stdout(io.StringIO()):
            pty.spawn([sys.executable, "-c", script, *command], read)
        out = b"".join(pieces)
        assert b"\x1b[1;31mFAILED\x1b[0m" in out and b"\\x1b" not in out


def test_json(capsys):
    assert main(["gradcheck", "gelu", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["layer"] == "gelu" and report["passed"] and report["tensors"][0]["checked"] == 120


def test_the_dot_product_is_a_column_where_the_forward_takes_complex_numbers(capsys, monkeypatch):
    assert main(["gradcheck", "linear", "cross-entropy"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert all(float(line.split()[-2]) <= 1e-13 for line in out if line.startswith("linear"))
    assert all(line.split()[-2:] == ["–", "ok"] for line in out if line.startswith("cross-entropy"))
    assert main(["gradcheck", "linear", "--no-dot-product"]) == 0
    assert "dot product" not in capsys.readouterr().out
    assert main(["gradcheck", "linear", "--dot-product", "--ops", "kernels"]) == 2
    capsys.readouterr()

    def gelu_backward(dout, cache, alloc=None):
        return layers.gelu.gelu_backward(dout, cache) * (1 + 1e-8)

    monkeypatch.setattr(layers, "gelu_backward", gelu_backward)
    assert main(["gradcheck", "gelu", "--no-dot-product"]) == 0  # differences cannot see it
    assert main(["gradcheck", "gelu"]) == 1
    assert main(["gradcheck", "gelu", "--json"]) == 1
    case = next(case for case in cases.layer_cases(layers) if case.name == "gelu")
    assert cases.check_case(case, dot_product=True).failed_checks() == ["dot product of x"]
