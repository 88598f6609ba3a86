"""`benchmarks step` and `benchmarks assembly`: what they report has the right parts. No speeds."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import assembly, step

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


def test_the_command_prints_a_table_and_json(capsys, monkeypatch):
    monkeypatch.setattr(step, "SHAPES", {"small": SPEC})
    assert command.main(["step", "--seconds", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("a whole step" in line for line in lines) and any("Python" in line for line in lines)
    assert set(json.loads(lines[-1])["steps"]) == {"small"}


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


def test_a_kernel_that_is_compiled_here(capsys):
    assert command.main(["assembly", "layernorm"]) == 0
    printed = capsys.readouterr().out
    loops = json.loads(printed.splitlines()[-1])["assembly"]["layernorm"]
    assert loops and all(loop["instructions"] > 0 for loop in loops)
    assert max(loop["multiplies"] for loop in loops) > 0


def test_an_unknown_kernel_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["assembly", "gem"])
    assert stop.value.code == 2 and "gem" in capsys.readouterr().err
