"""Hessian-vector products against differences, a whole Hessian and JAX; the dot-product test; noise scale."""

import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, kernels, layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.study import cases, curvature
from gpt_numpy.study.dot_product import dot_product_errors
from gpt_numpy.study.whole_model import unit_scale

CONFIG = GPTConfig(5, 4, n_layer=1, n_head=2, n_embd=4)


def make(config=CONFIG, seed=0, ops=layers, dtype=np.float64, B=2, T=3):
    model = GPT(config, dtype=dtype, ops=ops)
    rng = np.random.default_rng(seed)
    unit_scale(model.params, rng)
    tokens, targets = rng.integers(0, config.vocab_size, (2, B, T))
    targets[0, 0] = -1
    return model, tokens, targets, rng


def gradient_at(model, flat, tokens, targets):
    model.params.flat[...] = flat
    model.zero_gradients()
    model.loss(tokens, targets)
    model.backward()
    return model.grads.flat.copy()


@pytest.mark.parametrize("n_layer", [1, 2])
def test_the_product_is_that_of_differences_of_gradients(n_layer):
    model, tokens, targets, rng = make(CONFIG.replace(n_layer=n_layer))
    v, x, h = rng.standard_normal(model.params.flat.size), model.params.flat.copy(), 1e-5
    found = curvature.hessian_vector_product(model, v, tokens, targets)
    assert np.array_equal(model.params.flat, x)
    differences = gradient_at(model, x + h * v, tokens, targets) - gradient_at(model, x - h * v, tokens, targets)
    differences /= 2 * h
    assert np.linalg.norm(found - differences) < 1e-6 * np.linalg.norm(differences)


def test_the_hessian_is_symmetric_and_a_wrong_backward_makes_it_not(monkeypatch):
    model, tokens, targets, rng = make()
    u, v = rng.standard_normal((2, model.params.flat.size))

    def asymmetry():
        left = u @ curvature.hessian_vector_product(model, v, tokens, targets)
        right = v @ curvature.hessian_vector_product(model, u, tokens, targets)
        return abs(left - right) / abs(left)

    assert asymmetry() < 1e-12
    right = layers.mlp_backward

    def wrong(dout, cache, **options):
        dx, *parameters = right(dout, cache, **options)
        return 0.9 * dx, *parameters

    monkeypatch.setattr(layers, "mlp_backward", wrong)
    assert asymmetry() > 1e-3


def test_context_reaches_the_model():
    model, tokens, targets, rng = make()
    v = rng.standard_normal(model.params.flat.size)
    first_key = np.array([[0, 1, 1], [0, 0, 2]])
    masked = curvature.hessian_vector_product(model, v, tokens, targets, first_key=first_key)
    assert not np.allclose(masked, curvature.hessian_vector_product(model, v, tokens, targets))
    with pytest.raises(ConfigError, match="direction"):
        curvature.hessian_vector_product(model, v[1:], tokens, targets)


def test_eigenvalues_and_trace_of_the_whole_hessian():
    model, tokens, targets, _ = make()
    n = model.params.flat.size
    hessian = np.stack([curvature.hessian_vector_product(model, e, tokens, targets) for e in np.eye(n)])
    values = np.linalg.eigvalsh(hessian)
    found = curvature.eigenvalues(model, tokens, targets, n_products=60)
    assert abs(found.largest - values[-1]) < 1e-6 * values[-1] and abs(found.smallest - values[0]) < 1e-3 * values[-1]
    assert found.residual < 1e-3 * values[-1]
    trace, error = curvature.trace_estimate(model, tokens, targets, n_probes=60)
    assert abs(trace - values.sum()) < 5 * error and error < values[-1]


def test_the_noise_scale_is_the_ratio_of_variance_and_squared_mean():
    model, tokens, targets, rng = make(B=6)
    gradients = [gradient_at(model, model.params.flat, tokens[i : i + 1], targets[i : i + 1]) for i in range(6)]
    covariance = np.var(gradients, axis=0, ddof=1).sum()
    mean = np.mean(gradients, axis=0)
    expected = covariance / (mean @ mean - covariance / 6)
    model.zero_gradients()
    assert abs(curvature.gradient_noise_scale(model, tokens, targets) / expected - 1) < 1e-9
    assert not model.grads.flat.any()
    with pytest.raises(ConfigError, match="two sequences"):
        curvature.gradient_noise_scale(model, tokens[:1], targets[:1])


@pytest.mark.parametrize("name", [case.name for case in cases.layer_cases(layers) if cases.is_analytic(case)])
def test_the_dot_product_test_needs_no_step(name):
    case = next(case for case in cases.layer_cases(layers) if case.name == name)
    errors = [dot_product_errors(case, seed) for seed in range(5)]
    assert errors[0] and max(max(e.values()) for e in errors) <= 1e-13


def test_the_dot_product_test_sees_a_small_error():
    case = next(case for case in cases.layer_cases(layers) if case.name == "linear")

    def backward(dout, cache):
        dx, dweight, dbias = layers.linear_backward(dout, cache)
        return dx, dweight * (1 + 1e-9), dbias

    errors = dot_product_errors(case._replace(backward=backward))
    assert errors["weight"] > 1e-11 and errors["x"] <= 1e-13


def test_a_model_on_kernels_in_float32_is_taken_too():
    model, tokens, targets, rng = make(ops=kernels, dtype=np.float32)
    double, *_ = make()
    v = rng.standard_normal(model.params.flat.size)
    double.params.flat[...] = model.params.flat
    expected = curvature.hessian_vector_product(double, v, tokens, targets)
    assert np.allclose(curvature.hessian_vector_product(model, v, tokens, targets), expected, rtol=1e-12)


def test_the_product_is_that_of_jax():
    try:
        import jax
    except ImportError:
        pytest.skip("needs jax")
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    config = CONFIG.replace(n_layer=2)
    model, tokens, targets, rng = make(config)
    shapes, edges = model.params.shapes, model.params.boundaries
    counted = jnp.asarray(targets != -1)

    def loss(flat):
        p = {n: flat[a:b].reshape(shape) for (n, shape), a, b in zip(shapes.items(), edges, edges[1:])}

        def norm(x, name):
            c = x - x.mean(-1, keepdims=True)
            xhat = c / jnp.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)
            return xhat * p[f"{name}.weight"] + p[f"{name}.bias"]

        B, T = tokens.shape
        x = p["wte.weight"][tokens] + p["wpe.weight"][:T]
        for i in range(config.n_layer):
            h = f"h.{i}."
            qkv = norm(x, h + "ln_1") @ p[h + "attn.c_attn.weight"] + p[h + "attn.c_attn.bias"]
            q, k, v = qkv.reshape(B, T, 3, config.n_head, -1).transpose(2, 0, 3, 1, 4)
            scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
            weights = jax.nn.softmax(jnp.where(jnp.tri(T, dtype=bool), scores, -jnp.inf), -1)
            heads = (weights @ v).transpose(0, 2, 1, 3).reshape(B, T, -1)
            x = x + heads @ p[h + "attn.c_proj.weight"] + p[h + "attn.c_proj.bias"]
            hidden = norm(x, h + "ln_2") @ p[h + "mlp.c_fc.weight"] + p[h + "mlp.c_fc.bias"]
            gelu = 0.5 * hidden * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
            x = x + gelu @ p[h + "mlp.c_proj.weight"] + p[h + "mlp.c_proj.bias"]
        log_p = jax.nn.log_softmax(norm(x, "ln_f") @ p["wte.weight"].T, -1)
        at_target = jnp.take_along_axis(log_p, jnp.where(counted, targets, 0)[..., None], -1)[..., 0]
        return -(at_target * counted).sum() / counted.sum()

    flat = jnp.asarray(model.params.flat)
    for _ in range(3):
        v = rng.standard_normal(flat.size)
        expected = np.asarray(jax.jvp(jax.grad(loss), (flat,), (jnp.asarray(v),))[1])
        found = curvature.hessian_vector_product(model, v, tokens, targets)
        assert np.linalg.norm(found - expected) <= 1e-9 * np.linalg.norm(expected)
