import numpy as np
import pytest

from gpt_numpy import layers
from gpt_numpy.study import cases


def case_named(name):
    return next(case for case in cases.layer_cases(layers) if case.name == name)


def test_every_forward_of_the_layers_has_a_case():
    covered = {case.forward.__name__ for case in cases.layer_cases(layers)}
    assert covered == {name for name in layers.__all__ if name.endswith("_forward")}


def test_sizes_differ_pairwise():
    sizes = [cases.B, cases.T, cases.N_HEAD, cases.HEAD_SIZE, cases.V, cases.BLOCK_SIZE, cases.C]
    assert len(set(sizes)) == len(sizes)


def test_the_seed_alone_decides_the_values():
    first, again, other = (cases.layer_cases(layers, seed) for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other):
        arrays = [name for name, value in a.inputs.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
        assert all(np.array_equal(a.inputs[n], b.inputs[n]) for n in arrays)
        assert any(not np.array_equal(a.inputs[n], c.inputs[n]) for n in arrays)


def test_into_that_is_overwritten_is_caught():
    case = case_named("linear")

    def backward(dout, cache, into=None):
        gradients = layers.linear_backward(dout, cache)
        if into is None:
            return gradients
        for array, gradient in zip(into, gradients[1:]):
            array[...] = gradient
        return gradients[0], *into

    assert cases.check_case(case._replace(backward=backward)).failed_checks() == ["accumulation"]


def test_into_that_is_not_returned_is_caught():
    case = case_named("linear")

    def backward(dout, cache, into=None):
        gradients = layers.linear_backward(dout, cache, into=into)
        return tuple(np.copy(g) for g in gradients)

    assert cases.check_case(case._replace(backward=backward)).failed_checks() == ["accumulation"]


def one_too_many(Tq, Tk, first_key=None):
    return (np.arange(Tk) <= np.arange(Tk - Tq, Tk)[:, None] + 1)[None, None]


def own_key_missing(Tq, Tk, first_key=None):
    key, query = np.arange(Tk), np.arange(Tk - Tq, Tk)[:, None]
    return ((key < query) | (key == 0))[None, None]


@pytest.mark.parametrize("name", ["attention", "multi-head"])
@pytest.mark.parametrize(
    "visible_keys, message", [(one_too_many, "may not be seen"), (own_key_missing, "no gradient, yet is seen")]
)
def test_a_wrong_mask_in_forward_and_backward_alike_is_caught(monkeypatch, name, visible_keys, message):
    """Differences cannot see it: the backward is right for the wrong forward."""
    from gpt_numpy.layers import attention

    monkeypatch.setattr(attention, "visible_keys", visible_keys)
    report = cases.check_case(case_named(name))
    assert report.failed_checks() == ["visibility"]
    assert message in report.violations[0].message


# ---- what the small cases cannot see ----------------------------------------------------------------------------------


def planted(file, old, new):
    """``layers`` with one piece of text replaced wherever it stands in a file."""
    from gpt_numpy.study.bugs import planting

    bug = planting.Bug("planted", file, old, new, "cross-entropy: value", "", "")
    source = bug.path.read_text(encoding="utf-8")
    assert old in source

    class Everywhere(planting.Bug):
        def patched_source(self):
            return source.replace(old, new)

    return planting.plant(Everywhere(*bug))[0]


def failed_checks(ops, layer):
    every = cases.layer_cases(ops) + cases.optimizer_cases(ops)
    return {case.name: cases.check_case(case).failed_checks() for case in every if case.layer == layer}


def test_a_mean_that_is_wrong_for_one_target_alone_is_caught():
    """Forward and backward are wrong by the same factor: only a value from elsewhere shows it."""
    failed = failed_checks(planted("cross_entropy.py", "max(len(index), 1)", "max(len(index), 2)"), "cross-entropy")
    assert failed.pop("cross-entropy (one target)") == ["value"]
    assert not any(failed.values())


@pytest.mark.parametrize(
    "old, new",
    [
        ("correction1 = 1 - beta1**step", "correction1 = 1"),
        ("(1 - beta2) * g * g", "(1 - beta2) * g"),
        ("p *= 1 - learning_rate * float(decay)", "pass"),
    ],
)
def test_a_wrong_step_of_the_optimizer_is_caught(old, new):
    failed = failed_checks(planted("adamw.py", old, new), "adamw")
    assert "value" in failed["adamw"]


@pytest.mark.parametrize("width", [2, 4, 8, 16])
def test_long_sizes_enter_every_loop_of_a_kernel_at_every_width(width):
    """Unrolled four times, whole vectors after that, and a rest."""
    assert cases.LONG_C >= 4 * width and cases.LONG_C % width
    assert cases.LONG_C % (4 * width) >= width or width == 16
