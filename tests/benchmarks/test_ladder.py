"""The ladder's machinery on small problems: every rung agrees with its oracle, a wrong one is never timed."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import ladder, timing
from benchmarks.problems import error_against, fresh

LIMITS = {"gflops": 100.0, "gbytes": 10.0}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0.0)


@pytest.mark.parametrize("name", ladder.CASES)
def test_every_rung_agrees_with_the_float64_oracle(name):
    case = ladder.load(name)
    inputs = case.problem.inputs(case.small_size)
    expected = case.problem.oracle(inputs)
    for rung in case.rungs:
        assert error_against(expected, rung.run(fresh(inputs))) <= case.problem.tolerance, rung.name


def test_a_wrong_rung_is_reported_and_not_timed():
    case = ladder.load("gelu")
    wrong = ladder.Rung("wrong", lambda inputs: (inputs["x"],))
    right = case.rungs[1]
    small = case._replace(size=case.small_size, rungs=[wrong, right])
    reported = []
    results = ladder.climb(small, LIMITS, reported.append)
    assert [r.rung for r in reported] == ["wrong", right.name]
    assert not results[0].passed and results[0].seconds is None and results[0].gflops is None
    assert results[1].passed and results[1].seconds["median"] > 0 and results[1].memory > 0


@pytest.mark.parametrize("name", ["gemm_bfloat16", "attention_bfloat16"])
def test_a_rung_is_compared_with_the_limit_of_its_products(name):
    case = ladder.load(name)
    rungs = [rung._replace(small=False) for rung in case.rungs[-2:]]
    limits = {"gflops": 1e-3, "gflops_bfloat16": 1e-6, "gbytes": 1e9}
    found = ladder.climb(case._replace(size=case.small_size, rungs=rungs), limits, lambda result: None)
    assert [result.products for result in found] == ["float32", "bfloat16"]
    assert [result.share for result in found] == pytest.approx([found[0].gflops / 1e-3, found[1].gflops / 1e-6])
    assert found[1].error > 1e-4  # the operands are rounded


def test_rungs_that_work_in_place_do_not_disturb_each_other():
    case = ladder.load("adamw")
    rungs = [rung._replace(small=False) for rung in case.rungs[1:]]
    results = ladder.climb(case._replace(size=case.small_size, rungs=rungs), LIMITS, lambda result: None)
    assert [result.passed for result in results] == [True] * 3


def test_an_output_with_a_nan_or_another_shape_fails():
    want = (np.ones((2, 3)),)
    assert np.isnan(error_against(want, (np.full((2, 3), np.nan),)))
    assert np.isnan(error_against(want, (np.ones((3, 2)),)))
    assert error_against(want, (np.ones((2, 3)) * 1.5,)) == 0.5


def test_unknown_names_are_refused(capsys):
    assert command.main(["run", "atention"]) == 2
    assert "atention" in capsys.readouterr().err


def test_list_names_everything(capsys):
    assert command.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ladder.CASES)


def test_the_plot_is_an_image(tmp_path):
    plot = pytest.importorskip("benchmarks.plot")
    size = {"rows": 2}
    results = [
        ladder.Result("gelu", rung, 0.0, True, 0.0, {"median": 1.0}, gflops, 1.0, 0.1, 1, size)
        for rung, gflops in (("slow", 1.0), ("fast", 50.0))
    ]
    plot.roofline(results, LIMITS, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_a_result_is_json():
    case = ladder.load("gelu")
    results = ladder.climb(case._replace(size=case.small_size, rungs=case.rungs[1:2]), LIMITS, lambda result: None)
    assert json.loads(json.dumps(results[0]._asdict()))["rung"] == case.rungs[1].name
