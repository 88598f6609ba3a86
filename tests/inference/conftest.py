import numpy as np
import pytest

from gpt_numpy import GPT, GPTConfig, layers

CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=3, n_embd=12)


def unit_scale(model, seed=0):
    """Give every parameter values large enough that every part of the model matters."""
    rng = np.random.default_rng(seed)
    for name, view in model.params.items():
        view[...] = rng.standard_normal(view.shape) * 0.4 + (1 if ".ln_" in f".{name}" and "weight" in name else 0)
    return model


@pytest.fixture(scope="session")
def model():
    """A small model in float64 whose context is soon full."""
    return unit_scale(GPT(CONFIG, dtype=np.float64, ops=layers))
