import types

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.errors import GPTNumpyError
from gpt_numpy.model import IGNORE_INDEX, DropoutAt
from gpt_numpy.study import trace
from gpt_numpy.study.bugs import BUGS, plant
from gpt_numpy.study.microscope import build_page
from gpt_numpy.study.trace import kind
from gpt_numpy.study.whole_model import unit_scale
from gpt_numpy.workspace import Workspace
from tests.study.letters import Letters

V, BLOCK_SIZE, B, T, N_HEAD, HEAD_SIZE = 11, 7, 2, 5, 3, 4
C = N_HEAD * HEAD_SIZE
FIRST_KEY = np.array([[0, 0, 2, 2, 2], [0, 1, 1, 1, 4]])
AT = DropoutAt(seed=1, step=2)


def make(dtype=np.float64, n_layer=2, dropout=0.0, **options):
    model = GPT(GPTConfig(V, BLOCK_SIZE, n_layer, N_HEAD, C, dropout), dtype=dtype, ops=layers, **options)
    unit_scale(model.params, np.random.default_rng(0))
    return model


def batch():
    tokens, targets = np.random.default_rng(1).integers(0, V, (2, B, T))
    targets[1, 0] = IGNORE_INDEX
    return tokens, targets


def traced(model, **options):
    with trace(model) as t:
        model.loss(*batch(), **options)
        model.zero_gradients()
        model.backward()
    return t


@pytest.fixture(scope="module")
def everything():
    return traced(make(dropout=0.2), first_key=FIRST_KEY, dropout_at=AT)


def test_every_kind_is_there_with_value_and_gradient(everything):
    assert len(everything.kinds()) == 50
    for name, tensor in everything.items():
        assert tensor.value.shape == tensor.grad.shape and np.isfinite(tensor.grad).all(), name
    assert everything["h.1.attn.weights"].value.shape == (B, N_HEAD, T, T)
    assert everything["h.0.mlp.gelu"].value.shape == (B, T, 4 * C)
    assert everything["lm_head.logits"].grad.shape == (B, T, V)
    assert list(everything)[0] == "embedding.tokens" and list(everything)[-1] == "lm_head.loss"


KINDS = [
    "embedding.tokens",
    "embedding.positions",
    "embedding",
    "embedding.dropped",
    *(
        f"{ln}{step}"
        for ln in ("h.ln_1", "h.ln_2", "ln_f")
        for step in (".mean", ".centred", ".variance", ".rstd", ".xhat", ".scaled", "")
    ),
    *(
        f"h.attn{step}"
        for step in (".c_attn", ".q", ".k", ".v", ".products", ".scores", ".weights", ".weights_dropped", ".heads", "")
    ),
    *(f"h.residual_{i}{step}" for i in (1, 2) for step in (".dropped", "")),
    *(f"h.mlp{step}" for step in (".c_fc", ".gelu.u", ".gelu.tanh", ".gelu.gate", ".gelu", "")),
    *(f"lm_head.{step}" for step in ("logits", "log_normaliser", "log_probabilities", "losses", "loss")),
]


@pytest.mark.parametrize("wanted", KINDS)
def test_every_traced_gradient_passes_differences_where_it_stands(everything, wanted):
    names = [name for name in everything if kind(name) == wanted]
    assert names
    for name in names:
        check = everything.check(name, max_entries=20, n_directions=3)
        assert check.passed, check
        assert check.tensor == name and check.checked >= 1


def test_no_kind_is_left_out(everything):
    assert sorted(KINDS) == sorted(everything.kinds())


def test_a_wrong_traced_gradient_would_not_pass(everything):
    everything["h.0.attn.scores"].grad[0, 1, 2, 1] += 1e-3
    try:
        assert not everything.check("h.0.attn.scores").passed
    finally:
        everything["h.0.attn.scores"].grad[0, 1, 2, 1] -= 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("options", [{}, {"recompute": True, "workspace": True}])
def test_the_traced_run_is_the_untraced_run_bit_for_bit(dtype, at_once, options):
    options = {**options, "workspace": Workspace()} if options else {}
    model = make(dtype, dropout=0.3, **options)
    tokens, targets = batch()

    def step():
        model.zero_gradients()
        if at_once:
            loss = model.loss_and_gradients(tokens, targets, 0.7, first_key=FIRST_KEY, dropout_at=AT)
        else:
            loss = model.loss(tokens, targets, first_key=FIRST_KEY, dropout_at=AT)
            model.backward(0.7)
        return loss, model.grads.flat.copy()

    untraced_loss, untraced = step()
    with trace(model) as t:
        loss, gradients = step()
    assert loss == untraced_loss
    np.testing.assert_array_equal(gradients, untraced)
    assert step()[0] == loss and model.ops is layers and "loss" not in vars(model)
    assert t["h.0.attn.weights"].grad.any() and t["lm_head.loss"].grad == 0.7
    assert t["lm_head.loss"].value == loss


def test_values_are_those_of_the_layers(everything):
    """The steps, computed the long way, end where the layers end; and start the next layer."""
    for name in ("embedding", "h.0.ln_1", "h.0.attn", "h.1.mlp", "ln_f"):
        assert everything[name].value.dtype == np.float64
    t = everything
    bias, branch = t.model.params["h.0.ln_1.bias"], t["h.0.residual_1.dropped"].value
    np.testing.assert_allclose(t["h.0.ln_1.scaled"].value + bias, t["h.0.ln_1"].value)
    np.testing.assert_allclose(t["h.0.residual_1"].value, t["embedding.dropped"].value + branch)
    np.testing.assert_allclose(t["lm_head.losses"].value.sum() / (B * T - 1), t["lm_head.loss"].value)
    np.testing.assert_allclose(t["h.0.attn.weights"].value.sum(axis=-1), 1)


def test_gradients_continue_from_layer_to_layer():
    """What a layer's steps say of its input is what the layers' own backward hands on."""
    t = traced(make())
    np.testing.assert_allclose(t["h.1.residual_2"].grad, t["h.1.mlp"].grad)
    into_mlp = t["h.1.mlp.c_fc"].grad @ t.model.params["h.1.mlp.c_fc.weight"].T
    np.testing.assert_allclose(into_mlp, t["h.1.ln_2"].grad, rtol=1e-10, atol=1e-14)
    into_ln_2 = t["h.1.ln_2.centred"].grad + t["h.1.ln_2.mean"].grad / C
    np.testing.assert_allclose(into_ln_2 + t["h.1.residual_2"].grad, t["h.1.residual_1"].grad, rtol=1e-9, atol=1e-13)
    into_attention = t["h.0.attn.c_attn"].grad @ t.model.params["h.0.attn.c_attn.weight"].T
    np.testing.assert_allclose(into_attention, t["h.0.ln_1"].grad, rtol=1e-10, atol=1e-14)


def test_the_gradient_of_an_unseen_score_is_exactly_zero():
    t = traced(make(), first_key=FIRST_KEY)
    grad = t["h.0.attn.scores"].grad
    for b, i, j in np.ndindex(B, T, T):
        assert grad[b, :, i, j].any() == (FIRST_KEY[b, i] <= j <= i and FIRST_KEY[b, i] != i)


def test_logits_can_be_traced_too():
    model = make()
    tokens, _ = batch()
    with trace(model) as t:
        dlogits = np.random.default_rng(2).normal(size=model.forward(tokens).shape)
        model.backward(dlogits)
    np.testing.assert_array_equal(t["lm_head.logits"].grad, dlogits)
    for name in ("h.0.attn.k", "h.1.mlp.gelu.u", "lm_head.logits"):
        assert t.check(name, max_entries=20, n_directions=3).passed


def test_without_a_backward_there_is_no_gradient():
    model = make()
    with trace(model) as t:
        model.loss(*batch())
    assert t["h.0.attn.q"].grad is None and t["h.0.attn.q"].value.shape == (B, T, N_HEAD, HEAD_SIZE)
    with pytest.raises(GPTNumpyError, match=r"h\.0\.attn\.q: no backward"):
        t.check("h.0.attn.q")


def test_an_error_inside_leaves_the_model_as_it_was():
    model = make()
    with pytest.raises(ZeroDivisionError), trace(model):
        _ = 1 / 0
    assert model.ops is layers and not {"loss", "forward"} & set(vars(model))


def test_kernels_can_be_traced_and_checked_too():
    model, tokens_and_targets = make(dropout=0.2), batch()
    model.ops = kernels
    untraced = model.loss(*tokens_and_targets, dropout_at=AT)
    model.zero_gradients()
    model.backward()
    expected = model.grads.flat.copy()
    t = traced(model, dropout_at=AT)
    assert t["lm_head.loss"].value == untraced
    np.testing.assert_array_equal(model.grads.flat, expected)
    for name in ("h.0.attn.weights", "h.1.mlp.gelu", "h.0.ln_1.xhat", "lm_head.logits"):
        assert t.check(name, max_entries=20, n_directions=3).passed


# ---- what is wrong with the forward ----------------------------------------------------------------------------------

LEAKS = ("attention-mask-leaks-one-key", "attention-documents-not-kept-apart")


def traced_with(ops, dtype=np.float64):
    model = GPT(GPTConfig(V, BLOCK_SIZE, 2, N_HEAD, C), dtype=dtype, ops=ops)
    unit_scale(model.params, np.random.default_rng(0))
    return traced(model, first_key=FIRST_KEY)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ops", [layers, kernels], ids=["layers", "kernels"])
def test_right_ops_have_no_faults(ops, dtype):
    assert traced_with(ops, dtype).faults() == []


@pytest.mark.parametrize("name", LEAKS)
def test_a_mask_that_leaks_shows_in_the_weights_and_is_reported(name):
    t = traced_with(plant(BUGS[name])[0])
    unseen = ~layers.attention.visible_keys(T, T, FIRST_KEY)
    for block in (0, 1):
        weights = t[f"h.{block}.attn.weights"].value
        assert np.abs(np.where(unseen, weights, 0)).max() > 1e-3
        assert np.allclose(weights.sum(axis=-1), 1)  # what is shown is what the op computed
    faults = t.faults()
    assert faults[0].startswith("h.0.attn.weights: ") and "keys that may not be seen are not 0" in faults[0]
    assert sum("may not be seen" in fault for fault in faults) == 2


@pytest.mark.parametrize("ops", [layers, kernels], ids=["layers", "kernels"])
def test_an_op_that_computes_something_else_than_its_steps_is_reported(ops):
    def mlp_forward(*args, **kwargs):
        out, cache = ops.mlp_forward(*args, **kwargs)
        return 1.01 * out, cache

    names = {name: getattr(ops, name) for name in ops.__all__}
    broken = types.SimpleNamespace(**{**names, "mlp_forward": mlp_forward}, __all__=ops.__all__)
    faults = traced_with(broken, np.float32).faults()
    assert [fault.partition(":")[0] for fault in faults] == ["h.0.mlp", "h.1.mlp"]
    masked_late = traced_with(plant(BUGS["attention-mask-after-softmax"])[0]).faults()
    assert [fault.partition(":")[0] for fault in masked_late] == ["h.0.attn", "h.1.attn"]


def test_the_microscope_says_so_at_the_top():
    for ops, expected in ((layers, False), (plant(BUGS[LEAKS[0]])[0], True)):
        model = GPT(GPTConfig(V, BLOCK_SIZE, 1, N_HEAD, C), dtype=np.float64, ops=ops)
        assert ("keys that may not be seen" in build_page(model, Letters(), "abcdef")) == expected
        assert "keys that may not be seen" not in build_page(model, Letters(), "abcdef", say_faults=False)


def test_every_step_of_todays_blocks():
    parts = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", n_inner=7, bias="qkv", n_kv_head=1, qk_norm=True)
    model = GPT(GPTConfig(11, 7, 2, 3, 12, sliding_window=3, **parts), seed=3, dtype=np.float64, ops=layers)
    model.params.flat += 0.1 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 7))
    with trace(model) as t:
        model.loss(tokens[:, :-1], tokens[:, 1:])
        model.backward()
    names = [n for n in t if n.startswith("h.1.")]
    assert {"h.1.attn.q.normed", "h.1.attn.k.turned", "h.1.ln_1.rrms", "h.1.mlp.gate.activated"} <= set(names)
    for name in names:
        assert t.check(name, max_entries=3, n_directions=2).passed, name
