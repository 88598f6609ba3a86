"""`benchmarks step` and `benchmarks assembly`: what they report has the right parts. No speeds."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import assembly, step
from gpt_numpy.commands import bench
from gpt_numpy.commands import main as gpt_numpy_command

SPEC = dict(vocab_size=65, n_layer=2, n_head=2, n_embd=16, batch_size=3, block_size=8)


@pytest.fixture
def result():
    return step.measure(SPEC, 0.0)


def test_every_launch_of_a_step_has_a_row(result):
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["product 24 × 48 × 16"]["launches"] == 2  # c_attn, once a layer
    assert rows["product 24 × 48 × 16"]["operations"] == 2 * 2 * 24 * 48 * 16
    assert rows["attention.forward"]["launches"] == rows["attention.backward"]["launches"] == 2
    # 3 sequences, 2 heads, 8 + 7 + … + 1 pairs, 2 products of 8 multiply-adds, in 2 layers
    assert rows["attention.forward"]["operations"] == 3 * 2 * 36 * 2 * 2 * 8 * 2
    assert rows["adamw update"]["launches"] == 1 and rows["adamw update"]["bytes"] > 0


def test_the_parts_make_up_the_step(result):
    launches = sum(row["seconds"] for row in result["rows"])
    assert 0 < result["python"] < result["seconds"] and 0 < launches < 2 * result["seconds"]


def test_the_command_prints_a_table_and_writes_json_where_it_is_told(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(step, "SHAPES", {"small": SPEC})
    assert command.main(["step", "--seconds", "0", "--json", str(tmp_path / "step.json")]) == 0
    printed = capsys.readouterr().out
    assert "a whole step" in printed and "Python" in printed and "{" not in printed
    assert set(json.loads((tmp_path / "step.json").read_text())["steps"]) == {"small"}


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(step, "measure", lambda *_: pytest.fail("measured"))
    assert command.main(["step", "--json", str(tmp_path / "no" / "step.json")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("busy,said", [(0.2, False), (1.7, True)])
def test_a_busy_machine_is_mentioned(busy, said, capsys, monkeypatch):
    monkeypatch.setattr(step, "SHAPES", {"small": SPEC})
    monkeypatch.setattr(command, "others_busy", lambda: busy)
    command.main(["step", "--seconds", "0"])
    assert ("other programs keep 1.7 processors busy" in capsys.readouterr().err) == said


def test_gpt_numpy_bench_is_the_same_from_any_folder(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert gpt_numpy_command(["bench", "list"]) == 0
    assert "train-small" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        gpt_numpy_command(["bench", "run", "--plott", "x"])
    assert stop.value.code == 2 and "did you mean --plot?" in capsys.readouterr().err


def test_gpt_numpy_bench_says_where_the_benchmarks_are_when_only_the_package_is_installed(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(bench, "_FOLDER", tmp_path)
    assert gpt_numpy_command(["bench", "list"]) == 2
    assert "a clone of the project" in capsys.readouterr().err


LISTING = """
_ZN9gpt_numpy7kernels4gemm4tile5outerB3v10E:
	vmovups	(%rdi), %zmm0
.LBB0_1:
	movq	%rax, -8(%rsp)
.LBB0_2:
	vbroadcastss	(%rsi), %zmm2
	vmovups	64(%rsp), %zmm3
	vfmadd231ps	%zmm2, %zmm0, %zmm1
	vfmadd231ps	%zmm2, %zmm0, %zmm3
	vmovups	%zmm3, 64(%rsp)
	jne	.LBB0_2
	incq	%rax
	jl	.LBB0_1
	jmp	.LBB0_9
.LBB0_9:
	retq
"""


def test_a_loop_is_taken_apart():
    (loop,) = assembly.loops_of(LISTING)
    assert loop.function == "outerB3v10E".partition("B")[0]
    assert (loop.instructions, loop.bits, loop.spills, loop.multiplies) == (6, 512, 2, 2)
    assert loop.mix["vfmadd231ps"] == 2


def test_a_kernel_that_is_compiled_here(tmp_path):
    assert command.main(["assembly", "layernorm", "--json", str(tmp_path / "loops.json")]) == 0
    loops = json.loads((tmp_path / "loops.json").read_text())["assembly"]["layernorm"]
    assert loops and all(loop["instructions"] > 0 for loop in loops)
    assert max(loop["multiplies"] for loop in loops) > 0


def test_an_unknown_kernel_is_refused(capsys):
    assert command.main(["assembly", "gem"]) == 2
    assert "'gem'" in capsys.readouterr().err
