"""The model as a whole: what must hold whatever the numbers are.

Its gradients are checked by differences in tests/study/test_whole_model.py, and against another
implementation in tests/interop.
"""

import math

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers, parameters
from gpt_numpy.config import preset_names
from gpt_numpy.errors import ConfigError, ContextLengthError, DataError
from gpt_numpy.model import IGNORE_INDEX, DropoutAt
from gpt_numpy.study.whole_model import unit_scale
from gpt_numpy.workspace import Workspace

B, T, V, BLOCK_SIZE, N_LAYER, N_HEAD, C = 2, 5, 11, 7, 3, 3, 12
CONFIG = GPTConfig(V, BLOCK_SIZE, N_LAYER, N_HEAD, C)
FIRST_KEY = np.array([[0, 0, 2, 2, 2], [0, 1, 1, 1, 4]])


def make(config=CONFIG, dtype=np.float64, **options):
    model = GPT(config, dtype=dtype, ops=layers, **options)
    unit_scale(model.params, np.random.default_rng(7))
    return model


def batch(n=B, seed=3):
    return np.random.default_rng(seed).integers(0, V, (2, n, T))


def gradients_of(model, tokens, targets, **options):
    model.zero_gradients()
    loss = model.loss_and_gradients(tokens, targets, **options)
    return loss, model.grads.flat.copy()


# ---- causality -----------------------------------------------------------------------------------------------


def test_the_loss_at_t_has_exactly_no_gradient_from_later_inputs():
    model, (tokens, targets) = make(), batch()
    for t in range(T):
        only_t = np.full_like(targets, IGNORE_INDEX)
        only_t[:, t] = targets[:, t]
        model.loss(tokens, only_t)
        dx = model.backward()
        assert not dx[:, t + 1 :].any()
        assert (np.abs(dx[:, : t + 1]).max(axis=-1) > 0).all()


def test_later_tokens_change_no_earlier_logit():
    model, (tokens, other) = make(), batch()
    logits = model.forward(tokens)
    for t in range(1, T):
        changed = np.concatenate([tokens[:, :t], other[:, t:]], axis=1)
        np.testing.assert_array_equal(model.forward(changed)[:, :t], logits[:, :t])


def test_documents_do_not_see_each_other():
    model, (tokens, _) = make(), batch()
    first_key = np.broadcast_to([0, 0, 2, 2, 2], (B, T))
    logits = model.forward(tokens, positions=np.array([0, 1, 0, 1, 2]), first_key=first_key)
    apart = [model.forward(tokens[:, :2]), model.forward(tokens[:, 2:])]
    np.testing.assert_allclose(logits, np.concatenate(apart, axis=1), rtol=1e-11, atol=1e-12)


# ---- the same numbers by every road ---------------------------------------------------------------------------


def test_loss_is_the_cross_entropy_of_the_logits():
    model, (tokens, targets) = make(), batch()
    targets[1, 3] = IGNORE_INDEX
    logits = model.forward(tokens)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    counted = targets != IGNORE_INDEX
    expected = -np.take_along_axis(log_p, np.maximum(targets, 0)[..., None], axis=-1)[..., 0][counted].mean()
    assert math.isclose(model.loss(tokens, targets), expected, rel_tol=1e-12)


def test_backward_from_logits_is_backward_from_the_loss():
    model, (tokens, targets) = make(), batch()
    model.loss(tokens, targets)
    dembedding = model.backward(0.7)
    expected = model.grads.flat.copy()
    model.zero_gradients()
    _, cache = layers.cross_entropy_forward(model.forward(tokens), targets)
    again = model.backward(layers.cross_entropy_backward(0.7, cache))
    np.testing.assert_allclose(again, dembedding, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(model.grads.flat, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loss_and_gradients_is_loss_then_backward_bit_for_bit(dtype):
    model, (tokens, targets) = make(dtype=dtype), batch()
    loss = model.loss(tokens, targets)
    model.backward(0.5)
    expected = model.grads.flat.copy()
    model.zero_gradients()
    assert model.loss_and_gradients(tokens, targets, 0.5) == loss
    np.testing.assert_array_equal(model.grads.flat, expected)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputation_and_workspace_change_no_bit(dropout):
    config = CONFIG.replace(dropout=dropout)
    at = DropoutAt(seed=1, step=2, first_sequence=4)
    tokens, targets = batch()
    expected = gradients_of(make(config, np.float32), tokens, targets, first_key=FIRST_KEY, dropout_at=at)
    assert np.isfinite(expected[1]).all() and np.abs(expected[1]).max() > 0
    for options in ({"recompute": True}, {"workspace": Workspace()}, {"recompute": True, "workspace": Workspace()}):
        model = make(config, np.float32, **options)
        for _ in range(3):  # a workspace grows in the first step and is used again in the next two
            loss, gradients = gradients_of(model, tokens, targets, first_key=FIRST_KEY, dropout_at=at)
            assert loss == expected[0]
            np.testing.assert_array_equal(gradients, expected[1])


def test_a_workspace_serves_batches_of_any_size_in_turn():
    model, plain = make(workspace=Workspace()), make()
    for n, length in ((2, 5), (3, 2), (1, 7), (2, 5)):
        tokens, targets = np.random.default_rng(n).integers(0, V, (2, n, length))
        found, expected = gradients_of(model, tokens, targets), gradients_of(plain, tokens, targets)
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])


# ---- gradients add up ------------------------------------------------------------------------------------------


def test_backward_adds_until_gradients_are_zeroed():
    model, (tokens, targets) = make(), batch()
    model.loss(tokens, targets)
    model.backward()
    once = model.grads.flat.copy()
    model.backward()
    np.testing.assert_allclose(model.grads.flat, 2 * once, rtol=1e-12, atol=1e-15)
    model.zero_gradients()
    assert not model.grads.flat.any()
    model.backward()
    np.testing.assert_array_equal(model.grads.flat, once)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_micro_batches_add_up_to_the_batch(dropout):
    """With dropout too: a mask belongs to a sequence of the global batch, however that is cut."""
    model = make(CONFIG.replace(dropout=dropout))
    tokens, targets = batch(6)
    whole_loss, whole = gradients_of(model, tokens, targets, dropout_at=DropoutAt(9, 4, first_sequence=2))
    model.zero_gradients()
    loss = 0.0
    for start, stop in ((0, 1), (1, 3), (3, 6)):
        share = (stop - start) / 6
        at = DropoutAt(9, 4, first_sequence=2 + start)
        loss += share * model.loss_and_gradients(tokens[start:stop], targets[start:stop], share, dropout_at=at)
    assert math.isclose(loss, whole_loss, rel_tol=1e-12)
    np.testing.assert_allclose(model.grads.flat, whole, rtol=1e-9, atol=1e-13)


def test_wte_gets_a_gradient_from_both_of_its_places():
    model, (tokens, targets) = make(), batch()
    tokens[...] = tokens % 5  # tokens 5 to 10 are never looked up: their rows hear from the head alone
    model.loss(tokens, targets)
    dembedding = model.backward()
    total = model.grads["wte.weight"]
    from_embedding = np.zeros_like(total)
    np.add.at(from_embedding, tokens, dembedding)
    assert total[5:].any(axis=-1).all() and not from_embedding[5:].any()
    from_head = total - from_embedding
    assert np.abs(from_head.sum(axis=0)).max() < 1e-12  # each row of dlogits sums to 0
    assert np.abs(from_embedding[: tokens.max() + 1]).max() > 0


# ---- dropout ----------------------------------------------------------------------------------------------------


def test_dropout_is_a_function_of_seed_step_and_sequence():
    model, (tokens, targets) = make(CONFIG.replace(dropout=0.4)), batch()
    places = [DropoutAt(0, 0, 0), DropoutAt(1, 0, 0), DropoutAt(0, 1, 0), DropoutAt(0, 0, 1)]
    losses = [model.loss(tokens, targets, dropout_at=at) for at in places]
    assert losses == [model.loss(tokens, targets, dropout_at=at) for at in places]
    assert len({*losses, model.loss(tokens, targets)}) == 5


def test_without_a_place_or_a_probability_nothing_is_dropped():
    tokens, targets = batch()
    plain = make().loss(tokens, targets)
    assert make(CONFIG.replace(dropout=0.4)).loss(tokens, targets) == plain
    assert make().loss(tokens, targets, dropout_at=DropoutAt(0, 0)) == plain


def test_every_site_of_dropout_has_a_mask_of_its_own():
    probabilities = []

    class Spy:
        __all__ = layers.__all__

        def __getattr__(self, name):
            def call(*args, **kwargs):
                probabilities.extend((a.key, a.probability) for a in args if type(a).__name__ == "Dropout")
                return getattr(layers, name)(*args, **kwargs)

            return call

    model = make(CONFIG.replace(dropout=0.25))
    model.ops = Spy()
    model.loss(*batch(), dropout_at=DropoutAt(3, 8))
    assert len(probabilities) == len(set(probabilities)) == 1 + 3 * N_LAYER
    assert {p for _, p in probabilities} == {0.25}


# ---- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, n_parameters",
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("distilgpt2", 81_912_576),
    ],
)
def test_published_parameter_counts(name, n_parameters):
    assert parameters.count(GPTConfig.preset(name)) == n_parameters


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_shape(name):
    config = GPTConfig.preset(name)
    assert config.head_size * config.n_head == config.n_embd
    assert GPTConfig.preset(name, n_layer=1).n_layer == 1


def test_initial_values():
    config = GPTConfig(997, 128, n_layer=4, n_head=4, n_embd=128)
    params = GPT(config, seed=5, ops=layers).params
    for name, values in params.items():
        if ".ln_" in f".{name}":
            assert (values == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert not values.any(), name
        else:
            std = 0.02 / math.sqrt(2 * 4) if name.endswith("c_proj.weight") else 0.02
            assert abs(values.std() / std - 1) < 6 / math.sqrt(2 * values.size), name
            assert abs(values.mean()) < 6 * std / math.sqrt(values.size), name
    matrices = [v.ravel()[:50].tobytes() for n, v in params.items() if v.ndim == 2]
    assert len(set(matrices)) == len(matrices)


def test_initial_values_are_a_function_of_the_seed_and_the_dtype_only_rounds():
    first, again, other = (GPT(CONFIG, seed=s, ops=layers).params.flat for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(GPT(CONFIG, dtype=np.float64, ops=layers).params.flat.astype(np.float32), first)


def test_a_fresh_model_is_nearly_indifferent():
    tokens, targets = batch()
    assert abs(GPT(CONFIG, ops=layers).loss(tokens, targets) - math.log(V)) < 0.1


def test_gradient_descent_learns_a_batch_by_heart():
    model, (tokens, targets) = GPT(CONFIG, ops=layers), batch()
    tokens[:, 0] = 0, 1  # told apart from the first token on
    m, v = np.zeros((2, *model.params.flat.shape), np.float32)
    edges, decays = np.array([0, len(m)]), np.zeros(1)
    for step in range(1, 151):
        loss, g = gradients_of(model, tokens, targets)
        layers.adamw_update(model.params.flat, g, m, v, edges, decays, 0.01, 0.9, 0.99, 1e-8, step)
    assert loss < 0.05


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens, error, message",
    [
        (np.zeros((B, BLOCK_SIZE + 1), int), ContextLengthError, "found 8; expected at most 7"),
        (np.array([[0, 1], [2, V]]), DataError, r"tokens\[1, 1\].*found 11; expected 0 to 10"),
        (np.array([[0, -1]]), DataError, r"tokens\[0, 1\].*found -1"),
        (np.zeros(T, int), DataError, r"expected integers \(B, T\)"),
        (np.zeros((B, T)), DataError, "found 'float64"),
        (np.array([[2**40]]), DataError, "found 1099511627776"),
    ],
)
def test_bad_tokens(tokens, error, message):
    with pytest.raises(error, match=message):
        make().forward(tokens)


def test_bad_targets():
    model, (tokens, targets) = make(), batch()
    with pytest.raises(DataError, match="targets"):
        model.loss(tokens, targets[:, 1:])
    for bad in (V, -2):
        targets[1, 2] = bad
        with pytest.raises(DataError, match=rf"targets\[1, 2\].*found {bad}"):
            model.loss(tokens, targets)


def test_bad_positions_and_documents():
    model, (tokens, _) = make(), batch()
    with pytest.raises(ContextLengthError, match="found 7; expected 0 to 6"):
        model.forward(tokens, positions=np.arange(3, 3 + T))
    with pytest.raises(DataError, match="positions"):
        model.forward(tokens, positions=np.arange(T + 1))
    for bad in (FIRST_KEY[:1], FIRST_KEY + 1, FIRST_KEY - 1):
        with pytest.raises(DataError, match="first_key"):
            model.forward(tokens, first_key=bad)


def test_backward_needs_a_forward():
    with pytest.raises(RuntimeError, match="backward"):
        make().backward()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_head": 5}, "n_head: .*divisor of n_embd = 12"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"n_layer": -1}, "n_layer"),
        ({"n_embd": 12.0}, "n_embd"),
        ({"block_size": True}, "block_size"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
    ],
)
def test_bad_shapes(changes, message):
    with pytest.raises(ConfigError, match=message):
        CONFIG.replace(**changes)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gpt2-medium'"):
        GPTConfig.preset("gpt2_medium")
    with pytest.raises(ConfigError, match="did you mean 'n_head'"):
        GPTConfig.preset("tiny", n_heads=4)


def test_empty_batches_pass_through():
    assert make().forward(np.zeros((0, T), int)).shape == (0, T, V)
