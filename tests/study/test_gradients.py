"""The checker must pass what is right, and above all fail what is wrong."""

import numpy as np
import pytest

import gpt_numpy
from gpt_numpy import layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.study import check_gradients


def cube_forward(x, scale):
    return scale * x**3, (x, scale)


def cube_backward(dout, cache):
    x, scale = cache
    return 3 * scale * x**2 * dout, np.sum(dout * x**3, axis=0)


@pytest.fixture
def inputs():
    rng = np.random.default_rng(1)
    return dict(x=rng.normal(size=(4, 3)), scale=rng.normal(size=3))


def test_it_is_public():
    assert gpt_numpy.check_gradients is check_gradients


@pytest.mark.parametrize("method", ["central", "complex"])
def test_right_gradients_pass_and_every_entry_is_compared(inputs, method):
    report = check_gradients(cube_forward, cube_backward, inputs, method=method)
    assert report.passed and report.failed_checks() == []
    assert [(t.tensor, t.shape, t.checked, t.method) for t in report.tensors] == [
        ("x", (4, 3), 12, "entries"),
        ("scale", (3,), 3, "entries"),
    ]
    assert report.checked == 15
    assert max(t.error for t in report.tensors) < (1e-14 if method == "complex" else 1e-9)


def test_a_single_wrong_entry_is_named(inputs):
    def backward(dout, cache):
        dx, dscale = cube_backward(dout, cache)
        dx[2, 1] += 1e-4
        return dx, dscale

    report = check_gradients(cube_forward, backward, inputs)
    assert report.failed_checks() == ["differences of x"]
    wrong = report.tensors[0]
    assert wrong.where == (2, 1) and abs(wrong.analytic - wrong.numeric - 1e-4) < 1e-8
    assert wrong.error > 1e-6 and wrong.ulps > 1e6


@pytest.mark.parametrize("limit, method", [(12, "entries"), (11, "directions")])
def test_large_tensors_are_checked_along_directions_and_a_wrong_entry_shows_in_all(inputs, limit, method):
    def backward(dout, cache):
        dx, dscale = cube_backward(dout, cache)
        dx[0, 0] *= 1.01
        return dx, dscale

    for function, passes in ((cube_backward, True), (backward, False)):
        report = check_gradients(cube_forward, function, inputs, max_entries=limit, n_directions=5)
        assert report.tensors[0].passed == passes and report.tensors[1].passed
        assert report.tensors[0].method == method
        assert report.tensors[0].checked == (12 if method == "entries" else 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_a_number_fails(inputs, bad):
    def backward(dout, cache):
        dx, dscale = cube_backward(dout, cache)
        dx[1, 2] = bad
        return dx, dscale

    with np.errstate(invalid="ignore"):
        report = check_gradients(cube_forward, backward, inputs)
    assert not report.tensors[0].passed and report.tensors[0].where == (1, 2)


def test_a_transposed_gradient_is_a_broken_shape(inputs):
    report = check_gradients(cube_forward, lambda d, c: (cube_backward(d, c)[0].T, np.zeros(3)), inputs)
    assert report.failed_checks() == ["shapes"] and not report.passed


def test_a_missing_gradient_is_a_broken_shape(inputs):
    report = check_gradients(cube_forward, lambda d, c: cube_backward(d, c)[0], inputs)
    assert report.failed_checks() == ["shapes"]


def test_a_backward_that_changes_its_cache_is_caught(inputs):
    def forward(x, scale):
        return scale * x**3, (x.copy(), scale)

    def backward(dout, cache):
        gradients = cube_backward(dout, cache)
        cache[0][...] = 0
        return gradients

    assert check_gradients(forward, backward, inputs).failed_checks() == ["repeat"]


@pytest.mark.parametrize("target", ["input", "dout"])
def test_a_function_that_writes_to_what_it_was_given_is_caught(inputs, target):
    def backward(dout, cache):
        gradients = cube_backward(dout, cache)
        (dout if target == "dout" else cache[1])[0] += 1
        return gradients

    report = check_gradients(cube_forward, backward, inputs)
    assert "untouched" in report.failed_checks()
    message = next(v.message for v in report.violations if v.check == "untouched")
    assert message.endswith("dout" if target == "dout" else "scale")


def test_a_gradient_of_exactly_zero_is_not_failed_by_the_quotients_rounding():
    def forward(x):
        return 100 + 0 * x.sum() + np.sin(1e3), None

    report = check_gradients(forward, lambda dout, cache: np.zeros(7), dict(x=np.ones(7)))
    assert report.passed and report.tensors[0].checked == 7


def test_what_is_not_a_floating_array_is_handed_through():
    def forward(x, power, index):
        return x[index] ** power, (x, power, index)

    def backward(dout, cache):
        x, power, index = cache
        dx = np.zeros_like(x)
        np.add.at(dx, index, dout * power * x[index] ** (power - 1))
        return dx

    inputs = dict(x=np.arange(1.0, 6.0), power=3, index=np.array([0, 2, 2]))
    assert check_gradients(forward, backward, inputs).passed


def test_names_choose_what_the_gradients_belong_to(inputs):
    report = check_gradients(cube_forward, lambda d, c: cube_backward(d, c)[1], inputs, names=["scale"])
    assert report.passed and [t.tensor for t in report.tensors] == ["scale"]


def test_wrong_arguments_are_named(inputs):
    with pytest.raises(ConfigError, match="float64"):
        check_gradients(cube_forward, cube_backward, {**inputs, "x": inputs["x"].astype(np.float32)})
    with pytest.raises(ConfigError, match="weight"):
        check_gradients(cube_forward, cube_backward, inputs, names=["weight"])
    with pytest.raises(ConfigError, match="method"):
        check_gradients(cube_forward, cube_backward, inputs, method="forward")


def test_an_empty_tensor_passes_with_nothing_checked():
    x = np.zeros((0, 3))
    report = check_gradients(layers.gelu_forward, layers.gelu_backward, dict(x=x))
    assert report.passed and report.checked == 0


def product_forward(x, weight):
    return x @ weight, (x, weight)


def product_backward(dout, cache):
    return {"weight": cache[0].T @ dout, "x": dout @ cache[1].T}


def product_inputs():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(3, 4)), "weight": rng.normal(size=(4, 5))}


def test_a_backward_may_return_a_dict_or_a_list():
    inputs = product_inputs()
    for backward in (
        product_backward,
        lambda dout, cache: {f"d{name}": g for name, g in product_backward(dout, cache).items()},
        lambda dout, cache: [product_backward(dout, cache)[name] for name in ("x", "weight")],
    ):
        report = check_gradients(product_forward, backward, inputs)
        assert report.passed and [t.tensor for t in report.tensors] == ["x", "weight"]
        assert report.tensors[0].shape == (3, 4) and len(report.tensors[0].where) == 2


def test_a_dict_that_lacks_a_gradient_or_has_another_is_told_apart():
    inputs = product_inputs()
    report = check_gradients(
        product_forward, lambda d, c: {"weight": product_backward(d, c)["weight"], "b": 1.0}, inputs
    )
    assert [t.tensor for t in report.tensors] == ["weight"] and report.tensors[0].passed and not report.passed
    assert [v.message for v in report.violations] == ["no input is called 'b'; no gradient of x"]
    with pytest.raises(ConfigError, match="x: the backward returned no gradient"):
        check_gradients(product_forward, lambda d, c: {"weight": c[0].T @ d}, inputs, names=["x"])


def test_a_report_is_its_table(monkeypatch):
    report = check_gradients(product_forward, lambda d, c: (d @ c[1].T, 2 * c[0].T @ d), product_inputs())
    monkeypatch.setenv("COLUMNS", "80")
    narrow = str(report)
    assert max(map(len, narrow.splitlines())) < 90 and "FAILED" in narrow and "ulps: " in narrow
    monkeypatch.setenv("COLUMNS", "200")
    assert "+1." in str(report) or "-" in str(report)
    assert len(str(report).splitlines()[0]) > 80 and repr(report) == str(report)
    page = report._repr_html_()
    assert page.count("<tr>") == 3 and ">FAILED<" in page and "<th>ulps</th>" in page


def test_failed_is_red_on_a_terminal(monkeypatch):
    import sys

    from gpt_numpy.study import table

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert table.verdict_text("FAILED") == "FAILED"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert table.verdict_text("FAILED") == "\x1b[1;31mFAILED\x1b[0m" and table.verdict_text("ok") == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert table.verdict_text("FAILED") == "FAILED"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert table.verdict_text("FAILED") == "FAILED"
