"""compile_kernels leaves nothing for the first training step to compile."""

import importlib
import pkgutil
import sys

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from gpt_numpy import GPT, GPTConfig, kernels
from gpt_numpy.kernels.runtime.warm_up import compile_kernels
from gpt_numpy.model import DropoutAt


def compiled_signatures():
    """Every kernel of the package that Python can call, with the signatures that are ready."""
    found = {}
    for module in pkgutil.walk_packages(kernels.__path__, kernels.__name__ + "."):
        for name, value in vars(importlib.import_module(module.name)).items():
            dispatcher = getattr(value, "compiled", value)
            if isinstance(dispatcher, Dispatcher):
                found[f"{module.name}.{name}"] = list(dispatcher.overloads)
    return found


@pytest.mark.parametrize("recompute", [False, True])
def test_a_training_step_after_it_compiles_nothing(recompute):
    compile_kernels()
    before = compiled_signatures()
    config = GPTConfig(n_layer=2, n_head=3, n_embd=12, vocab_size=31, block_size=9, dropout=0.1)
    model = GPT(config, recompute=recompute)
    tokens = np.random.default_rng(0).integers(0, 31, (2, 9))
    model.loss(tokens, tokens)
    model.forward(tokens[:, :4])
    model.loss_and_gradients(tokens, tokens, first_key=np.zeros((2, 9), np.int64), dropout_at=DropoutAt(1, 2))
    model.loss_and_gradients(tokens, tokens)
    flat = model.params.flat
    boundaries, decays = np.array([0, 100, flat.size]), np.array([0.1, 0.0])
    moments = np.zeros((2, flat.size), np.float32)
    model.ops.adamw_update(
        flat,
        model.grads.flat,
        *moments,
        boundaries,
        decays,
        1e-3,
        0.9,
        0.95,
        1e-8,
        1,
        1 / model.ops.gradient_norm(model.grads.flat),
    )
    after = compiled_signatures()
    assert {name: after[name] for name in after if after[name] != before[name]} == {}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_sees_a_progress_line(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert compile_kernels() > 0
    assert ("compiling kernels" in capsys.readouterr().err) == terminal
