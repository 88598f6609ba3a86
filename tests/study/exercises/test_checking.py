"""What is right passes, however it is written; what is wrong never does, and is named where it is a known mistake."""

import ast
import importlib.util
import math
import pathlib
import types

import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.study import check
from gpt_numpy.study.bugs import BUGS
from gpt_numpy.study.exercises import EXERCISES, check_text, checking, diagnosis, rivals, stubs

spec = importlib.util.spec_from_file_location("right_solutions", pathlib.Path(__file__).with_name("right_solutions.py"))
right_solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(right_solutions)
SOLUTIONS = right_solutions.SOLUTIONS
MISTAKES = [(name, slip.name) for name, exercise in EXERCISES.items() for slip in exercise.mistakes()]


def main_function(name, tree_or_text):
    namespace = {"np": np, "math": math, "layers": layers}
    exec(compile(tree_or_text, f"<{name}>", "exec"), namespace)
    return namespace[EXERCISES[name].written[-1]]


@pytest.mark.parametrize("level", stubs.LEVELS)
@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_is_not_written_and_says_so(name, level):
    exercise = EXERCISES[name]
    text = stubs.stub(exercise, level)
    assert check_text(exercise, text).state == "not written"
    assert check_text(exercise, text + "\n# touched, but nothing written\n").state == "not written"


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_keeps_the_forward_and_loses_the_derivation(name):
    exercise = EXERCISES[name]
    solution, stub, blank = stubs.solution(exercise), stubs.stub(exercise), stubs.stub(exercise, "blank")
    functions = {n.name: n for n in ast.walk(ast.parse(stub)) if isinstance(n, ast.FunctionDef)}
    for forward in exercise.forwards:
        node = next(n for n in ast.walk(ast.parse(solution)) if getattr(n, "name", "") == forward)
        assert ast.dump(functions[forward]) == ast.dump(node)
    for written in exercise.written:
        *docstring, last = functions[written].body
        assert len(docstring) <= 1 and ast.unparse(last) == "raise NotImplementedError"
    assert not [n for n in ast.walk(ast.parse(blank)) if isinstance(n, ast.FunctionDef)]
    assert all(written in blank for written in exercise.written)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_true_body_passes(name):
    verdict = check_text(EXERCISES[name], stubs.solution(EXERCISES[name]))
    assert verdict and verdict.state == "right", verdict


@pytest.mark.parametrize("name, number", [(name, i) for name, texts in SOLUTIONS.items() for i in range(len(texts))])
def test_right_solutions_pass_however_they_are_written(name, number):
    verdict = check(name, main_function(name, SOLUTIONS[name][number]))
    assert verdict, verdict


@pytest.mark.parametrize("name, mistake", MISTAKES)
def test_a_known_mistake_is_named_first(name, mistake):
    exercise = EXERCISES[name]
    slip = next(slip for slip in exercise.mistakes() if slip.name == mistake)
    verdict = check_text(exercise, stubs.patched(exercise, slip.old, slip.new))
    assert verdict.state == "wrong" and verdict.mistake == mistake, verdict
    assert slip.hint in verdict.text(hint=True) and mistake in verdict.text()


def test_every_planted_bug_of_a_layers_file_belongs_to_an_exercise():
    covered = {mistake for _, mistake in MISTAKES}
    left = {bug.name for bug in BUGS.values()} - covered
    assert left == {
        "accumulation-overwrites",  # in the keyword ``into``, which no exercise asks for
        "silu-slope-of-a-constant-gate",  # in activation_backward, which the exercise of swiglu is given
    }


@pytest.mark.parametrize("name", EXERCISES)
def test_random_arrays_match_no_mistake(name):
    """About 1,000 over all exercises: arrays of the right shapes that are wrong in no known way."""
    exercise = EXERCISES[name]
    expected = checking.run_all(exercise, types.SimpleNamespace(**checking.originals(exercise)))
    known = {n: results for n, (_, results) in rivals.of(exercise, checking.run_all).items()}
    rng = np.random.default_rng(3)
    for number in range(48):
        mine = {
            problem: {n: _random(rng, number, np.asarray(a)) for n, a in results.items()}
            for problem, results in expected.items()
        }
        assert diagnosis.wrong_results(mine, expected)
        assert not any(diagnosis.matching(mine, expected, known).values())


def _random(rng, number, right):
    noise = rng.standard_normal(right.shape)
    return (noise, right + noise, right * (1 + noise), right * noise)[number % 4]


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_a_wrong_gradient_has_its_position_and_its_reason():
    def linear_backward(dout, cache):
        dx, dweight, dbias = layers.linear_backward(dout, cache)
        return dx, -dweight, 2 * dbias

    verdict = check("linear", linear_backward)
    text = verdict.text()
    assert not verdict and verdict.mistake is None
    assert "dweight[" in text and "yours" in text and "expected" in text
    assert "times −1" in text and "times 2" in text and "right: out, dx" in text


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda dx, dw, db: (0 * dx, dw, db), "every entry is 0"),
        (lambda dx, dw, db: (dx, dw.T, db), "transposed"),
        (lambda dx, dw, db: (dx * np.nan, dw, db), "NaN"),
        (lambda dx, dw, db: (dx, dw), "returns 2 gradients; expected dx, dweight, dbias"),
        (lambda dx, dw, db: (dx * 12**0.5, dw, db), "one factor: 3.4641"),
    ],
)
def test_kinds_of_wrong_arrays_are_told_apart(wrong, said):
    verdict = check("linear", lambda dout, cache: wrong(*layers.linear_backward(dout, cache)))
    assert said in verdict.text()


@pytest.mark.parametrize(
    "factor, said",
    [
        (lambda B, T, C: 1 / (B * T), "1/(B·T): a mean where a sum belongs"),
        (lambda B, T, C: C**0.5, "times √C"),
        (lambda B, T, C: -0.5, "times −1/2"),
        (lambda B, T, C: B, "times B: a sum where a mean belongs"),
        (lambda B, T, C: 2, "times 2"),
    ],
)
def test_a_constant_factor_has_a_name(factor, said):
    verdict = check("gelu", lambda dout, cache: factor(*dout.shape) * layers.gelu_backward(dout, cache))
    assert said in verdict.text()


def test_a_missing_term_and_a_wrong_sign_are_named():
    def layernorm_backward(dout, cache):
        dx, dweight, dbias = layers.layernorm_backward(dout, cache)
        xhat = (cache.x - cache.mean) * cache.rstd
        g = dout * cache.weight
        return dx + 2 * cache.rstd * xhat * (g * xhat).mean(-1, keepdims=True), dweight, dbias

    assert "−r · xhat · mean(dxhat ∘ xhat) has the wrong sign" in check("layernorm", layernorm_backward).text()


def test_only_keys_in_multi_head_names_the_missing_terms():
    def multi_head_attention_backward(dout, cache):
        dx, dW, *rest = layers.multi_head_attention_backward(dout, cache)
        dqkv = np.linalg.lstsq(cache.attn.x.reshape(-1, dx.shape[-1]).T, dW, rcond=None)[0]
        third = dqkv.shape[1] // 3
        return dx, dW * np.r_[np.ones(third), np.zeros(2 * third)], *rest

    verdict = check("multi-head", multi_head_attention_backward)
    assert not verdict and verdict.mistake in (None, "multi-head-only-queries")


def test_writing_to_an_argument_is_noticed():
    def gelu_backward(dout, cache):
        dx = layers.gelu_backward(dout, cache)
        dout *= 0
        return dx

    assert "writes to dout" in check("gelu", gelu_backward).text()


def test_an_exception_names_the_line_of_the_readers_file():
    exercise = EXERCISES["gelu"]
    text = stubs.stub(exercise).replace("raise NotImplementedError", "return dout @ cache.nothing")
    verdict = check_text(exercise, text, "exercises/gelu.py")
    assert verdict.state == "wrong" and "return dout @ cache.nothing: AttributeError" in verdict.text()
    assert "line" in check_text(exercise, "def f(:\n").text()


def test_names_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'layernorm'"):
        check("layernrm", layers.layernorm_backward)
    with pytest.raises(ConfigError, match="no function"):
        check("gelu")
    with pytest.raises(ConfigError, match="not a function of this exercise"):
        check("attention", layers.attention_backward, layers.gelu_backward)


def test_a_sum_that_is_missing_and_a_mean_over_another_axis_are_told():
    def layernorm_backward(dout, cache):
        dx, dweight, dbias = layers.layernorm_backward(dout, cache)
        xhat = (cache.x - cache.mean) * cache.rstd
        g = dout * cache.weight
        shift = g.mean(axis=-2, keepdims=True)
        dx = cache.rstd * (g - shift - xhat * (g * xhat).mean(axis=-1, keepdims=True))
        return dx, (dout * xhat).sum(axis=0), dbias

    text = check("layernorm", layernorm_backward).text()
    assert "dweight: the shape is (5, 12); expected (12,): a sum over axis 0 is missing" in text
    assert "dx: this is what one gets with a sum, mean or maximum over another axis: 1 where -1 belongs" in text
