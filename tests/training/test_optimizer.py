import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers
from gpt_numpy.errors import ConfigError
from gpt_numpy.training import Settings
from gpt_numpy.training.optimizer import AdamW, clip_scale, decay_of

CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12)


def random_model(seed=0):
    model = GPT(CONFIG, seed, np.float64, layers)
    rng = np.random.default_rng(seed)
    model.params.flat[:] = rng.standard_normal(len(model.params.flat))
    model.grads.flat[:] = rng.standard_normal(len(model.params.flat))
    return model


def test_update_is_adamw_written_out_per_tensor():
    s = Settings(weight_decay=0.3, beta1=0.8, beta2=0.95, epsilon=1e-3)
    model = random_model()
    expected = {name: view.copy() for name, view in model.params.items()}
    first = {name: np.zeros_like(view) for name, view in expected.items()}
    second = {name: np.zeros_like(view) for name, view in expected.items()}
    optimizer = AdamW(model.params, s, layers)
    for step, rate in enumerate([0.1, 0.05, 0.2]):
        model.grads.flat[:] = np.random.default_rng(step).standard_normal(len(model.grads.flat))
        for name, p in expected.items():
            g = 0.5 * model.grads[name]
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.95 * second[name] + 0.05 * g**2
            m_hat, v_hat = first[name] / (1 - 0.8 ** (step + 1)), second[name] / (1 - 0.95 ** (step + 1))
            decay = 0.3 if p.ndim == 2 else 0.0
            expected[name] = p - rate * (m_hat / (np.sqrt(v_hat) + 1e-3) + decay * p)
        optimizer.update(model.params, model.grads, rate, step, 0.5)
    for name, p in expected.items():
        np.testing.assert_allclose(model.params[name], p, rtol=1e-12, atol=1e-13, err_msg=name)


def test_slices_together_do_what_the_whole_does():
    s = Settings(weight_decay=0.3, decay_groups=("h.1.*=0.7",))
    whole, sliced = random_model(), random_model()
    n = len(whole.params.flat)
    cuts = [0, 5, n // 3, n // 3 + 1, n]
    optimizers = [AdamW(sliced.params, s, layers, a, b) for a, b in zip(cuts, cuts[1:])]
    reference = AdamW(whole.params, s, layers)
    for step in range(3):
        reference.update(whole.params, whole.grads, 0.1, step, 1.0)
        for optimizer in optimizers:
            optimizer.update(sliced.params, sliced.grads, 0.1, step, 1.0)
    assert np.array_equal(whole.params.flat, sliced.params.flat)
    assert np.array_equal(reference.first, np.concatenate([o.first for o in optimizers]))


def test_decay_groups():
    s = Settings(weight_decay=0.1, decay_groups=("wte.*=0", "*.bias=0.2", "h.1.*=0.3"))
    decays = {name: decay_of(name, s) for name in random_model().params}
    assert decays["wte.weight"] == 0 and decays["wpe.weight"] == 0.1
    assert decays["h.0.attn.c_attn.bias"] == 0.2 and decays["h.0.ln_1.weight"] == 0
    assert decays["h.1.attn.c_attn.bias"] == 0.3 and decays["h.1.ln_1.weight"] == 0.3


@pytest.mark.parametrize("group", ["wte", "wte=", "wte=x", "wte=-1", "wte=nan"])
def test_bad_decay_group(group):
    with pytest.raises(ConfigError, match="decay"):
        Settings(decay_groups=(group,))


def test_clipping_shortens_and_never_stretches():
    assert clip_scale(4.0, 1.0) == 0.25
    assert clip_scale(0.5, 1.0) == 1.0
    assert clip_scale(4.0, 0.0) == 1.0
    assert clip_scale(0.0, 1.0) == 1.0
