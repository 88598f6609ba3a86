import types

import pytest

from gpt_numpy import layers, parameters
from gpt_numpy.study import table, whole_model
from gpt_numpy.study.whole_model import EMBEDDING_OUTPUT, ModelPair, check_model

N_ENTRIES = 2 * 5 * 12 + 11 * 12 + 7 * 12 + 2 * (12 * 36 + 36 + 12 * 12 + 12 + 2 * 12 * 48 + 48 + 12 + 4 * 12) + 2 * 12


def test_every_parameter_and_the_embeddings_output_entry_by_entry():
    report = check_model(layers)
    assert report.passed, "\n".join(table.lines("model", report))
    assert report.checked == N_ENTRIES
    assert [t.tensor for t in report.tensors] == [EMBEDDING_OUTPUT, *parameters.table(ModelPair(layers).model.config)]


@pytest.mark.parametrize("variant", [v for v in whole_model.model_variants() if v])
def test_variants(variant):
    report = check_model(layers, variant, max_entries=40)
    assert report.passed, "\n".join(table.lines(variant, report))
    own = whole_model.pair_of(layers, variant).model.params
    assert len(report.tensors) == 1 + len(own) and {t.method for t in report.tensors} == {"entries", "directions"}


def with_op(name, function):
    functions = {n: getattr(layers, n) for n in layers.__all__}
    return types.SimpleNamespace(**{**functions, name: function}, __all__=layers.__all__)


def test_a_tied_weight_without_one_of_its_gradients_is_caught():
    def lm_head_backward(dloss, cache, into=None, alloc=None):
        dx, dwte = layers.lm_head_cross_entropy_backward(dloss, cache)
        return dx, dwte

    report = check_model(with_op("lm_head_cross_entropy_backward", lm_head_backward), max_entries=1)
    assert report.failed_checks() == ["differences of wte.weight"]


def test_a_residual_that_is_not_handed_on_is_caught():
    def residual_backward(dout, cache, alloc=None):
        return 0 * dout, dout

    report = check_model(with_op("residual_backward", residual_backward), max_entries=1)
    assert f"differences of {EMBEDDING_OUTPUT}" in report.failed_checks()
    assert "differences of ln_f.bias" not in report.failed_checks()
