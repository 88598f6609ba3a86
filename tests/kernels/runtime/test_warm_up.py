"""compile_kernels leaves nothing for the first training step to compile."""

import importlib
import os
import pkgutil
import subprocess
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


@pytest.mark.parametrize("recompute, products", [(False, "float32"), (True, "float32"), (False, "bfloat16")])
def test_a_training_step_after_it_compiles_nothing(recompute, products):
    compile_kernels(products=products)
    before = compiled_signatures()
    config = GPTConfig(n_layer=2, n_head=3, n_embd=12, vocab_size=31, block_size=9, dropout=0.1)
    model = GPT(config, recompute=recompute, products=products)
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


STEP_IN_A_NEW_PROCESS = """
import sys
import numpy as np
from numba.core import event
from gpt_numpy import GPT, GPTConfig
from gpt_numpy.kernels.runtime.warm_up import compile_kernels, training_ops
from gpt_numpy.model import DropoutAt

dropout, parts = float(sys.argv[1]), eval(sys.argv[2])
config = GPTConfig(n_layer=1, n_head=3, n_embd=12, vocab_size=31, block_size=9, dropout=dropout, **parts)
compile_kernels(names=training_ops(dropout > 0, config))
model = GPT(config)
tokens = np.random.default_rng(0).integers(0, 31, (2, 9))
with event.install_recorder("numba:compile") as recorder:
    model.loss(tokens, tokens)
    model.loss_and_gradients(tokens, tokens, dropout_at=DropoutAt(1, 2))
    model.ops.gradient_norm(model.grads.flat)
assert not recorder.buffer, [event.data["dispatcher"] for _, event in recorder.buffer]
from gpt_numpy.kernels import dropout as dropping, gelu
from gpt_numpy.kernels.attention import few_queries
print(*(len(kernel.compiled.overloads) for kernel in (dropping._drop, gelu._forward, few_queries.forward_few)))
"""


LLAMA = dict(norm="rmsnorm", positions="rotary", mlp="swiglu", bias=False, n_kv_head=1, tied=False, head_dim=6)


@pytest.mark.parametrize(
    "dropout,parts,compiled",
    [
        ("0", {}, "0 0 0"),
        ("0.1", {}, "1 0 0"),
        ("0", LLAMA, "0 0 0"),
        ("0", dict(LLAMA, qk_norm=True, mlp="relu2", norm="layernorm", sliding_window=3), "0 0 0"),
        ("0", dict(bias=False, positions="rotary", qk_norm=True), "0 0 0"),
    ],
)
def test_training_compiles_what_it_calls_and_nothing_else(dropout, parts, compiled, tmp_path):
    command = [sys.executable, "-c", STEP_IN_A_NEW_PROCESS, dropout, repr(parts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == compiled.split()


@pytest.mark.campaign
def test_a_first_start_compiles_at_most_25_kernels(tmp_path):
    """Each combination of argument types is compiled anew; with literals among them there were 30."""
    command = [sys.executable, "-m", "gpt_numpy", "train", "--max-steps", "2", "--out", tmp_path / "run"]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")})
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) <= 25
