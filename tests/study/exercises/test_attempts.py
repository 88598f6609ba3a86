"""What readers try first, and what the check says to it; the same right solutions on other kinds of arrays."""

import importlib.util
import math
import pathlib

import numpy as np
import pytest
from numba import njit

from gpt_numpy import layers
from gpt_numpy.study import check
from gpt_numpy.study.exercises import EXERCISES, check_text, stubs

spec = importlib.util.spec_from_file_location("right_solutions", pathlib.Path(__file__).with_name("right_solutions.py"))
right_solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(right_solutions)
SOLUTIONS = [(name, text) for name, texts in right_solutions.SOLUTIONS.items() for text in texts]


def layernorm(body, returned="dx, (dout * xhat).sum(axis=(0, 1)), dout.sum(axis=(0, 1))"):
    start = "    x, mean, rstd, weight, *_ = cache\n    xhat, g = (x - mean) * rstd, dout * weight\n"
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    text = f"import numpy as np\n\n\ndef layernorm_backward(dout, cache):\n{start}{lines}    return {returned}\n"
    return check_text(EXERCISES["layernorm"], text).text(hint=True)


MEAN = "mean(axis=-1, keepdims=True)"


@pytest.mark.parametrize(
    "body, said",
    [
        ("dx = rstd * g", "the term −r · mean(dxhat) is missing; the term −r · xhat · mean(dxhat ∘ xhat) is missing"),
        (f"dx = rstd * (g - g.{MEAN})", "'layernorm-variance-term-forgotten': the term −r · xhat · mean"),
        ("dx = rstd * (g - g.mean() - xhat * (g * xhat).mean())", "rows must"),
        (f"dx = rstd * (g - g.mean() - xhat * (g * xhat).{MEAN})", "over another axis: all axes where -1 belongs"),
        ("dx = rstd * (g - g.mean(axis=-1))", "needs keepdims=True"),
        (
            f"dx = rstd * (g - x.shape[-1] * g.{MEAN} - xhat * (g * xhat).{MEAN})",
            "mean(dxhat) has the factor C too many",
        ),
        ("dx = rstd * g * wieght", "line 7: dx = rstd * g * wieght: NameError"),
    ],
)
def test_first_attempts_at_layernorm(body, said):
    text = layernorm(body)
    assert said.replace("rows must", "every row must sum to 0") in text, text


def test_what_is_returned():
    right = f"dx = rstd * (g - g.{MEAN} - xhat * (g * xhat).{MEAN})"
    assert layernorm(right).startswith("layernorm: right")
    assert "returns 1 gradient; expected dx, dweight, dbias" in layernorm(right, "dx")
    text = layernorm(right, "dx, dout * xhat, dout.sum(axis=0)")
    assert text.count("dweight: ") == 1 and "a sum over axis 0, 1 is missing" in text and "right: out, dx" in text


def test_a_hint_explains_its_words():
    text = layernorm(f"dx = rstd * (g - xhat * (g * xhat).{MEAN})")
    assert "hint: Sum the numeric dx" in text and "numeric: what is expected; analytic: what you return" in text
    assert "x: a row of the input" in text


def test_ignored_positions_that_learn_are_pointed_at():
    def cross_entropy_backward(dloss, cache):
        p = np.exp(cache.logits)
        p /= p.sum(axis=-1, keepdims=True)
        rows = p.reshape(-1, p.shape[-1])
        rows[np.arange(len(rows)), cache.targets] -= 1
        return p

    assert "rows that must be 0 are not, for example [0, 0]" in check("cross-entropy", cross_entropy_backward).text()


def test_problems_that_are_right_are_counted():
    def attention_backward(dout, cache):
        return layers.attention_backward(dout, cache._replace(dropout_cache=None))

    text = check("attention", attention_backward).text()
    assert "problems are right; wrong in: attention (dropout)" in text and "'attention-dropout-not-passed-back'" in text


def test_an_array_that_is_rebound_instead_of_written_to():
    def adamw_update(p, g, m, v, boundaries, decays, rate, beta1, beta2, epsilon, step, gradient_scale):
        m = beta1 * m + (1 - beta1) * g

    def attend_with_cache(q, k, v, keys, values, length):
        keys = np.concatenate([keys[:length], k[None]])
        return np.zeros(q.shape)

    @njit
    def softmax_rows(x, out):
        total = np.exp(x)
        total /= total.sum()

    assert "first_moments is left as it was: write into the array" in check("adamw", adamw_update).text()
    assert "keys is left as it was" in check("cache", attend_with_cache).text()
    assert "out is left as it was" in check("kernel", softmax_rows).text()


def test_attention_all_at_once_is_no_tiled_attention():
    def stable(q, k, v, tile):
        scores = q @ k.T / math.sqrt(q.shape[1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights @ v / weights.sum(axis=-1, keepdims=True)

    def overflowing(q, k, v, tile):
        weights = np.exp(q @ k.T / math.sqrt(q.shape[1]))
        return weights @ v / weights.sum(axis=-1, keepdims=True)

    text = check("online-softmax", stable).text()
    assert "MB at once" in text and "no more than (Tq, tile) scores may exist" in text
    verdict = check("online-softmax", overflowing)
    assert verdict.mistake is None and "NaN" in verdict.text()  # NaN everywhere is no evidence of any one mistake


def test_float32_somewhere_inside_is_named():
    def gelu_backward(dout, cache):
        return layers.gelu_backward(dout, cache).astype(np.float32).astype(np.float64)

    assert "agrees to 7 digits" in check("gelu", gelu_backward).text()


def test_ids_are_shown_as_lists():
    text = check("bpe", lambda word, alphabet, table: [alphabet[b] for b in word]).text()
    assert "yours [98, 98, 97, 97, 97, 97, 97], expected [257, 258, 258, 97]" in text


def test_a_line_of_a_function_of_a_notebook_is_shown(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("def gelu_backward(dout, cache):\n    return dout @ cache.x\n")
    namespace = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    assert "line 2: return dout @ cache.x: ValueError" in check("gelu", namespace["gelu_backward"]).text()


def test_methods_say_what_they_are_to_return_and_to_add_to():
    for name in ("block", "model"):
        for level in stubs.LEVELS:
            text = " ".join(stubs.stub(EXERCISES[name], level).split())
            assert "add the gradient of each of its parameters to self.grads" in text
            assert "and adds those of its parameters to g[name" in text


# ---- right solutions on other arrays ---------------------------------------------------------------------------------


def other_layout(a):
    """The same numbers, with the axes in another order in memory and gaps between them."""
    wide = np.empty((*a.shape[:-1], 2 * a.shape[-1]), a.dtype, order="F")
    wide[..., ::2] = a
    return wide[..., ::2]


def in_float32(a):
    return a.astype(np.float32)


def changed(value, change):
    """A cache, or an array of it, with ``change`` made to every floating array."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._replace(**{n: changed(getattr(value, n), change) for n in value._fields})
    return value


OTHER_ARRAYS = [
    (name, text, change)
    for name, text in SOLUTIONS
    for change in (other_layout, in_float32)
    if change is other_layout or "1e-30" not in text  # the complex step takes float64
]


@pytest.mark.parametrize("name, text, change", OTHER_ARRAYS)
def test_right_solutions_pass_on_other_arrays(name, text, change):
    namespace = {"np": np, "math": math, "layers": layers}
    exec(text, namespace)
    solution = namespace[EXERCISES[name].written[-1]]

    def backward(dout, cache):
        if isinstance(dout, np.ndarray):
            dout = change(dout)
        gradients = solution(dout, changed(cache, change))
        if change is other_layout:
            return gradients
        gradients = gradients.values() if isinstance(gradients, dict) else gradients
        return gradients.astype(np.float32) if isinstance(gradients, np.ndarray) else [in_float32(g) for g in gradients]

    verdict = check(name, backward)
    assert verdict, verdict


@pytest.mark.parametrize("kind", ["tuple", "list", "dict by d-name", "dict by name"])
@pytest.mark.parametrize("name", ["layernorm", "attention", "linear", "embedding", "head"])
def test_gradients_may_come_as_a_tuple_a_list_or_a_dict(name, kind):
    exercise = EXERCISES[name]
    main = exercise.written[-1]
    right = getattr(exercise.home, main)

    def backward(dout, cache):
        gradients = right(dout, cache)
        if kind.startswith("dict"):
            return dict(zip([("d" if "d-" in kind else "") + n for n in exercise.gradients], gradients))
        return {"tuple": tuple, "list": list}[kind](gradients)

    assert check(name, backward)
