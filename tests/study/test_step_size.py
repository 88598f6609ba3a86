import pytest

from gpt_numpy import layers
from gpt_numpy.study import cases, step_size


def curve(name, method):
    return step_size.v_curve(next(c for c in cases.layer_cases(layers) if c.name == name), method)


@pytest.mark.parametrize("name", ["gelu", "layernorm", "attention", "cross-entropy"])
def test_central_differences_fall_as_h_squared_then_rise_as_one_over_h(name):
    found = curve(name, "central")
    assert abs(found.slope(3e-2, 1e-3) - 2) < 0.1  # truncation
    assert abs(found.slope(1e-7, 1e-12) + 1) < 0.25  # rounding
    step, error = found.best
    assert 1e-6 < step < 1e-3 and error < 1e-9


@pytest.mark.parametrize("name", ["gelu", "layernorm", "attention"])
def test_the_complex_step_has_no_rounding_side(name):
    found = curve(name, "complex")
    assert abs(found.slope(3e-2, 1e-3) - 2) < 0.1
    assert max(e for h, e in zip(found.steps, found.errors) if h < 1e-8) < 1e-14


def test_a_linear_layer_has_no_truncation_side():
    assert max(curve("linear", "complex").errors) < 1e-14
    central = curve("linear", "central")
    assert central.errors[0] < 1e-13  # no h² to pay: the larger the step, the better
    assert central.slope(1e-2, 1e-12) < -0.8


def test_which_cases_are_analytic():
    for case in cases.layer_cases(layers):
        if cases.is_analytic(case):
            report = cases.check_gradients(case.forward, case.backward, case.inputs, method="complex", tolerance=1e-14)
            assert report.passed, case.name


def test_every_case_has_a_panel_of_its_own(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **options: figures.append(self))
    steps = (1e-2, 1e-4)
    curves = [step_size.VCurve(f"case {i}", "central", steps, (1e-3, 1e-5)) for i in range(6)]
    step_size.plot([*curves, curves[0]._replace(method="complex")], tmp_path / "v.png")
    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == [curve.name for curve in curves]
    assert len(figure.legends) == 1 and all(axes.get_legend() is None for axes in figure.axes)
