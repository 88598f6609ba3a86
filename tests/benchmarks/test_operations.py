"""Single operations next to their peers: every contender is held to the float64 answer before it is timed."""

import importlib
import importlib.util

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peers import operations

SMALL = {
    "attention": dict(B=2, T=19, n_head=3, head_size=8),
    "layernorm": dict(rows=11, columns=24),
    "gelu": dict(rows=7, columns=33),
    "cross-entropy": dict(rows=13, vocab_size=29),
    "adamw": dict(n=1001),
    "block": dict(rows=9, columns=20),
}


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(operations, "TURN", 0.0)


def problem(operation, folder):
    spec = dict(operation=operation, size=SMALL[operation])
    operations.make_folder(folder, spec)
    return spec | {"folder": folder}


def _contenders():
    for operation in SMALL:
        yield operation, "gpt_numpy"
        yield operation, "pytorch eager"
    for name in ("gpt_numpy bfloat16", "pytorch bf16"):
        yield "attention", name
        yield "block", name
    yield "block", "NumPy"
    yield "gelu", "pytorch compiled"  # one of them: each takes seconds to compile


@pytest.mark.parametrize("operation, name", list(_contenders()))
def test_a_contender_agrees_with_the_oracle_and_is_timed(operation, name, tmp_path):
    if "pytorch" in name and importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    spec = problem(operation, str(tmp_path))
    run = peers.RUNS["gemm-small" if operation == "block" else operation]
    module = importlib.import_module(f"benchmarks.peers.{run.contenders[name]}")
    step = module.prepare(name, spec)
    error, seconds = step()
    assert 0 < error <= operations.tolerance(name, spec) and seconds > 0
    assert step()[0] == error
    if operation == "block":
        assert list(step.report()) == ["x·W", "dout·Wᵀ", "xᵀ·dout"]


@pytest.mark.parametrize("operation", SMALL)
def test_a_wrong_output_shows_as_an_error(operation, tmp_path):
    spec = problem(operation, str(tmp_path))
    right = [np.load(tmp_path / f"{i}.npy") for i in range(len(list(tmp_path.glob("*.npy"))))]
    assert operations.error_of(right, spec) == 0
    right[-1].reshape(-1)[0] += 0.5 * np.abs(right[-1]).max()
    assert operations.error_of(right, spec) == pytest.approx(0.5, rel=1e-3)
    right[-1].reshape(-1)[0] = np.nan
    assert np.isnan(operations.error_of(right, spec))


def test_every_problem_has_inputs_for_its_operation():
    assert {spec["operation"] for _, spec, *_ in operations.PROBLEMS.values()} == set(SMALL)
