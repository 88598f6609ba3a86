"""What a model holds is its own: the batch that a backward needs, the gradients it reports, its copies."""

import copy
import pickle

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.study.whole_model import unit_scale
from gpt_numpy.workspace import Workspace

B, T, V, BLOCK_SIZE = 2, 5, 11, 7
CONFIG = GPTConfig(V, BLOCK_SIZE, n_layer=3, n_head=3, n_embd=12)
FIRST_KEY = np.array([[0, 0, 2, 2, 2], [0, 1, 1, 1, 4]])
POSITIONS = np.arange(T) - FIRST_KEY  # each document from 0 on; either array could stand where the other does
BOTH = pytest.mark.parametrize("ops", [layers, kernels], ids=["layers", "kernels"])


def make(ops, dtype=np.float64, **options):
    model = GPT(CONFIG, dtype=dtype, ops=ops, **options)
    unit_scale(model.params, np.random.default_rng(7))
    return model


def batch():
    return np.random.default_rng(3).integers(0, V, (2, B, T))


# ---- the batch -----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("fill", [0, 10**9, -1])
def test_the_batch_may_be_refilled_between_loss_and_backward(ops, recompute, fill):
    arrays = [*batch(), POSITIONS.copy(), FIRST_KEY.copy()]

    def gradients(refill):
        model = make(ops, recompute=recompute)
        given = [array.copy() for array in arrays]
        model.loss(*given[:2], positions=given[2], first_key=given[3])
        for array in given if refill else ():
            array[...] = fill
        model.backward()
        return model.grads.flat

    np.testing.assert_array_equal(gradients(True), gradients(False))


# ---- both options at once, by both roads ------------------------------------------------------------------------


@BOTH
def test_the_fused_road_hands_on_positions_and_first_key(ops):
    model, (tokens, targets) = make(ops), batch()
    options = {"positions": POSITIONS, "first_key": FIRST_KEY}
    loss = model.loss(tokens, targets, **options)
    model.backward(0.7)
    expected = model.grads.flat.copy()
    model.zero_gradients()
    assert model.loss_and_gradients(tokens, targets, 0.7, **options) == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(model.grads.flat, expected, rtol=1e-10, atol=1e-13)
    exchanged = {"positions": FIRST_KEY, "first_key": POSITIONS}
    assert abs(model.loss(tokens, targets, **exchanged) - loss) > 1e-3
    # And each sequence's documents, read one by one, are what the two options mean.
    starts = [sorted(set(row.tolist())) for row in FIRST_KEY]
    apart = [
        model.forward(tokens[b : b + 1, start:stop])[0]
        for b, row in enumerate(starts)
        for start, stop in zip(row, [*row[1:], T])
    ]
    together = model.forward(tokens, **options).reshape(B * T, V)
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-9, atol=1e-11)


# ---- gradients are reported while the backward still runs ---------------------------------------------------------


@BOTH
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_reported_as_soon_as_they_are_complete(ops, recompute):
    model, (tokens, targets) = make(ops, recompute=recompute), batch()
    reports, names = [], list(model.params)
    model.on_gradients = lambda name: reports.append((name, model.grads.flat.copy()))
    model.loss_and_gradients(tokens, targets)
    final = model.grads.flat
    assert [name for name, _ in reports] == ["h.2.ln_1.weight", "h.1.ln_1.weight", "h.0.ln_1.weight"]
    for name, then in reports:
        start = model.grads.boundaries[names.index(name)]
        np.testing.assert_array_equal(then[start:], final[start:])
        before = model.grads.boundaries[names.index(name) - 1]
        assert not then[before:start].any() and final[before:start].any(), f"{name}: its predecessor was complete too"


# ---- copies ----------------------------------------------------------------------------------------------------

COPIES = [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
ALL_COPIES = pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])


@BOTH
@ALL_COPIES
def test_a_copy_computes_the_same_and_shares_nothing(ops, copied):
    model, (tokens, targets) = make(ops, np.float32, workspace=Workspace()), batch()
    expected = model.loss(tokens, targets)
    twin = copied(model)
    assert twin.ops is ops and twin.config == model.config and twin.workspace is not model.workspace
    with pytest.raises(RuntimeError):
        twin.backward()
    assert twin.loss(tokens, targets) == expected
    twin.backward()
    model.backward()  # of its own pass, whose activations the twin's pass has left alone
    np.testing.assert_array_equal(twin.grads.flat, model.grads.flat)
    twin.params.flat[...] = 0
    assert not twin.params["wte.weight"].any() and model.params["wte.weight"].any()
    assert twin.params.flat.ctypes.data % 64 == 0


@ALL_COPIES
def test_copied_gradients_are_views_of_one_array_too(copied):
    model, (tokens, targets) = make(layers), batch()
    model.loss_and_gradients(tokens, targets)
    twin = copied(model)
    np.testing.assert_array_equal(twin.grads.flat, model.grads.flat)
    twin.zero_gradients()
    assert not any(view.any() for view in twin.grads.values()) and model.grads.flat.any()


@ALL_COPIES
def test_a_copy_replaces_the_gradients_that_its_model_was_told_to_replace(copied):
    model, (tokens, targets) = make(layers), batch()
    model.loss_and_gradients(tokens, targets)
    expected = model.grads.flat.copy()
    model.replace_gradients()
    for each in (copied(model), model):
        each.loss_and_gradients(tokens, targets)
        np.testing.assert_array_equal(each.grads.flat, expected)
